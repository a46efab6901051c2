import json
from pathlib import Path

import pytest

from builders.errors import UserError
from builders.format.manifest import Manifest, parse_manifest, read_manifest
from builders.format.names import MANIFEST, shard_name
from builders.storage.base import open_storage


def test_manifest__shard_names_have_no_total_and_folders_hold_1000() -> None:
    assert shard_name("train", 999) == "data/000/train-000999.tar"
    assert shard_name("train", 65_000) == "data/065/train-065000.tar"


def test_manifest__json_roundtrip_keeps_everything(finished: tuple[Path, Manifest]) -> None:
    out, manifest = finished
    assert parse_manifest((out / MANIFEST).read_bytes(), "x") == manifest == read_manifest(open_storage(out))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 3}, "format 3.* reads format 2; install a newer one"),
        ({"format": 1}, "format 1; use fakeit 0.1 for it, or make the clone again"),
        ({"num_samples": 3}, "num_samples 3"),
        ({"digest": "0"}, "digest '0'"),
        ({"shards": [{}]}, "not a clone manifest"),
        ({"num_rounds": "x"}, "num_rounds is not of type int"),
        ({"environments": []}, "points to no environment"),
        ({"executions": []}, "points to no execution"),
        ({"is_synthetic": 0}, "is_synthetic is not of type bool"),
        ({"recipe": []}, "recipe is not of type dict"),
        ({"recipe": {}}, "no name or engine"),
        ({"label_names": [1]}, "label_names is not a list of str"),
    ],
)
def test_manifest__invalid_fields_are_reported(
    finished: tuple[Path, Manifest], change: dict[str, object], words: str
) -> None:
    content = json.loads((finished[0] / MANIFEST).read_bytes()) | change
    with pytest.raises(UserError, match=words):
        parse_manifest(json.dumps(content).encode(), "here")


def test_manifest__unknown_fields_are_ignored(finished: tuple[Path, Manifest]) -> None:
    content = json.loads((finished[0] / MANIFEST).read_bytes())
    content["surprise"] = content["shards"][0]["surprise"] = content["metadata"][0]["surprise"] = 1
    assert parse_manifest(json.dumps(content).encode(), "here") == finished[1]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff"])
def test_manifest__content_that_is_no_manifest_is_reported(content: bytes) -> None:
    with pytest.raises(UserError, match="'here' is not a clone manifest"):
        parse_manifest(content, "here")


def test_manifest__missing_and_unfinished_clones_have_different_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clone at"):
        read_manifest(open_storage(tmp_path))
    open_storage(tmp_path).write("_making/recipe.json", b"{}")
    with pytest.raises(UserError, match="unfinished"):
        read_manifest(open_storage(tmp_path))
