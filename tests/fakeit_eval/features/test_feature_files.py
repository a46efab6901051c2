import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from builders.errors import UserError
from fakeit_eval.features.feature_files import read_feature_file

X, Y = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
SPLITS = {"X_train": X, "y_train": Y, "X_test": X[:3].copy(), "y_test": Y[:3].copy()}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_feature_files__splits_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    np.savez(path, **SPLITS) if suffix == "npz" else save_file(SPLITS, path)  # type: ignore[arg-type]
    found = read_feature_file(path)
    assert set(found.splits) == {"train", "test"} and found.name == "clip"
    assert np.array_equal(found.splits["train"][0], X) and found.splits["test"][1].tolist() == [0, 1, 2]
    assert found.splits["train"][0].dtype == np.float32 and found.splits["train"][1].dtype == np.int64


def test_feature_files__labels_may_be_any_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", X=X, y=Y * 2084071 + 7)
    assert read_feature_file(tmp_path / "all.npz").splits["all"][1].tolist() == Y.tolist()


def test_feature_files__a_file_without_splits_is_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", X=X.astype(np.float64), y=Y.astype(np.uint8))
    assert set(read_feature_file(tmp_path / "all.npz").splits) == {"all"}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": X}, "has no array 'y' among X"),
        ({"features": X}, "has no array 'X' among features"),
        ({"X_train": X, "y_train": Y}, "has only train; it needs X_train"),
        ({"X": X, "y": Y[:3]}, r"'y' in .* is int64 \(3,\), but must be class numbers"),
        ({"X": X, "y": Y - 1}, "must be class numbers from 0 on"),
        ({"X": X, "y": Y.astype(float)}, "must be class numbers"),
        ({"X": X[0], "y": Y}, r"is float32 \(4,\), but must be floats \(n, d\)"),
        ({"X": X.astype(int), "y": Y}, "must be floats"),
        ({**SPLITS, "X_test": X[:3, :2]}, r"have \[2, 4\] dimensions"),
    ],
)
def test_feature_files__arrays_that_do_not_fit_are_refused(arrays: Any, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(UserError, match=words):
        read_feature_file(tmp_path / "file.npz")


class Runs:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch HACKED",)


def test_feature_files__code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("objects.npz", X=np.array([Runs()], dtype=object), y=Y)
    Path("pickle.npz").write_bytes(pickle.dumps(Runs()))
    Path("pickle.safetensors").write_bytes(pickle.dumps(Runs()))
    for name in ("objects.npz", "pickle.npz", "pickle.safetensors", "missing.npz"):
        with pytest.raises(UserError, match=f"'{name}' cannot be read as plain arrays"):
            read_feature_file(Path(name))
    assert not Path("HACKED").exists()
