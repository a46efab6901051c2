"""Pickles of published split files are read as plain data, whatever version of numpy or Python wrote them."""

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.errors import UserError
from builders.image_sets.annotation_files import DataRoot
from builders.image_sets.plain_pickle import read_plain_pickle
from fakeit_eval.open_tasks import open_tasks
from tests.fakeit_eval.official import cog

PLAIN: list[Any] = [
    [["n01"], ["n02", "n03"]],
    {"n01": {"train": np.array(["a.JPEG", "bcd.JPEG"]), "test": np.array(["ä.JPEG"], dtype=object)}},
    {"n01": np.array([b"a", b"bc"])},
    collections.OrderedDict(a=(1, 2.5, None, True)),
    np.arange(6).reshape(2, 3),
]


def as_lists(data: Any) -> Any:
    if isinstance(data, np.ndarray):
        return as_lists(data.tolist())
    if isinstance(data, bytes):
        return data.decode()
    if isinstance(data, dict):
        return {key: as_lists(value) for key, value in data.items()}
    return [as_lists(value) for value in data] if isinstance(data, list | tuple) else data


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("data", PLAIN)
def test_plain_pickle__data_is_read(data: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(data, protocol))
    assert read_plain_pickle(path) == as_lists(data)


def test_plain_pickle__files_of_older_numpys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.pkl"
    content = pickle.dumps(np.array(["a.JPEG", "b.JPEG"]), 2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    assert b"numpy.core.multiarray" in content
    path.write_bytes(content)
    assert read_plain_pickle(path) == ["a.JPEG", "b.JPEG"]


class Runs:
    def __init__(self, what: Any, *arguments: Any) -> None:
        self.call = (what, arguments)

    def __reduce__(self) -> Any:
        return self.call


def ring() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "data",
    [
        Runs(os.system, "touch HACKED"),
        Runs(eval, "open('HACKED', 'w')"),
        {"n01": {"train": Runs(exec, "open('HACKED', 'w')")}},
        np.array([Runs(os.mkdir, "HACKED")], dtype=object),
        Runs(np.fromfile, "/etc/passwd"),
        Runs(np.load, "file.npy"),
        ring(),
        complex(1, 2),
    ],
)
def test_plain_pickle__code_and_other_types_are_refused(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(data))
    with pytest.raises(UserError, match=r"file\.pkl' (is a pickle that would call|cannot be read)") as message:
        read_plain_pickle(path)
    assert "\n" not in str(message.value) and os.listdir(tmp_path) == ["file.pkl"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([1])[:-1],
        b"cos\nsystem\n(S'touch HACKED'\ntR.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_plain_pickle__broken_files_are_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.pkl"):
        read_plain_pickle(tmp_path / "file.pkl")
    assert os.listdir(tmp_path) == ["file.pkl"]


def test_cog__hostile_split_files_are_refused(tmp_path: Path) -> None:
    cog(tmp_path)
    splits = tmp_path / "cog" / "cog_concepts_split_file.pkl"
    splits.write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path}/HACKED")))
    with pytest.raises(UserError, match=r"would call 'posix\.system', so it is not read"):
        open_tasks(["cog_l1"], DataRoot(root=str(tmp_path)))
    assert not (tmp_path / "HACKED").exists()
    outside = {f"n1000000{i}": {split: ["../../etc/passwd"] for split in ("train", "test")} for i in range(2)}
    splits.write_bytes(pickle.dumps(outside))
    with pytest.raises(UserError, match=r"names '\.\./\.\./etc/passwd', which is outside"):
        open_tasks(["cog_l1"], DataRoot(root=str(tmp_path)))
