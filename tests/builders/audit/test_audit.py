"""Tests that an audit finds the faults planted in a clone of real digits, reports all of them, and deletes nothing."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders.audit.audit import audit_clone
from builders.audit.findings import Audit
from builders.audit.image_checks import Reader
from builders.audit.text_prompts import with_parents
from builders.card.render import clone_card
from builders.classes.class_options import ClassOptions
from builders.cli import main as cli
from builders.errors import UserError
from builders.format.manifest import Manifest, read_manifest
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.real_images import RealImages
from builders.recipes.recipe import recipe_from_dict
from builders.storage.base import open_storage
from builders.verification.verify_clone import verify_clone
from builders.viewing.gallery import write_gallery
from tests import in_process
from tests.builders.audit.embedders import PrototypeEmbedder, WordEmbedder

PER_CLASS = 12


@pytest.fixture(scope="module")
def planted(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """A clone of the digits 0, 1 and 4 with a fault of each kind, and the file names of the faults."""
    root = tmp_path_factory.mktemp("planted")
    names = {"blank": {"blank"}, "duplicate": {"~copy"}, "label": {"swapped"}, "medium": {"drawn"}}
    for wnid in ("n13742358", "n13742573", "n13744304"):
        (root / "folders" / wnid).mkdir(parents=True)
        for path in sorted((scans / "test" / wnid).iterdir())[:PER_CLASS]:
            Image.open(path).save(root / "folders" / wnid / path.name)
    zeros, ones = root / "folders" / "n13742358", root / "folders" / "n13742573"
    first = sorted(zeros.iterdir())[0]
    Image.new("RGB", (32, 32), (90, 90, 90)).save(zeros / "blank.png")
    Image.open(first).convert("RGB").point([min(value + 6, 255) for value in range(256)] * 3).save(zeros / "~copy.png")
    sorted(ones.iterdir())[0].rename(zeros / "swapped.png")
    Image.fromarray(255 - np.asarray(Image.open(first).convert("RGB"))).save(zeros / "drawn.png")
    options = ClassOptions(source=str(root / "folders"))
    recipe = RealImages.recipe("test", options, shard_size=8)
    make_clone(Plan(recipe, recipe.default_rounds), str(root / "clone"))
    return root / "clone", names


@pytest.fixture(scope="module")
def embedder(scans: Path, planted: tuple[Path, dict[str, set[str]]]) -> PrototypeEmbedder:
    classes = recipe_from_dict(read_manifest(open_storage(planted[0])).recipe).classes
    examples = {
        entry.wnid: [np.asarray(Image.open(path).convert("RGB")) for path in (scans / "train" / entry.wnid).iterdir()]
        for entry in classes
    }
    return PrototypeEmbedder(with_parents(classes), examples)


def audited(clone: Path, embedder: Any, cache: Path) -> Audit:
    return audit_clone(str(clone), embedder, cache=cache, batch_size=5, num_threads=2)


def test_audit__finds_what_was_planted(
    planted: tuple[Path, dict[str, set[str]]], embedder: PrototypeEmbedder, tmp_path: Path
) -> None:
    clone, names = planted
    found = audited(clone, embedder, tmp_path)
    names_by_key = dict(zip(found.findings.keys, _sources(clone), strict=True))
    for kind, expected in names.items():
        keys = found.keys([kind])
        assert {names_by_key[key] for key in keys} >= expected, kind
        assert len(keys) <= len(expected) + (3 if kind in ("label", "medium") else 0), kind
    assert found.keys(["broken", "nsfw"]) == []
    rows = {row["key"]: row for row in found.images().to_pylist()}
    copy = next(row for row in rows.values() if "duplicate" in row["findings"])
    assert names_by_key[copy["duplicate_of"]] < "~" and rows[copy["duplicate_of"]]["label"] == copy["label"]
    assert next(row for row in rows.values() if names_by_key[row["key"]] == "drawn")["medium"] == "drawing"


def _sources(clone: Path) -> list[str]:
    """Returns the file name of each sample; class folders are read in the order of their file names."""
    recipe = recipe_from_dict(read_manifest(open_storage(clone)).recipe)
    opened = pq.read_table(clone / "metadata" / "test-00000.parquet").to_pylist()
    files = {entry.wnid: sorted((clone.parent / "folders" / entry.wnid).iterdir()) for entry in recipe.classes}
    return [files[row["wnid"]][row["index"]].stem for row in opened]


def test_audit__lists_runner_up_classes(
    planted: tuple[Path, dict[str, set[str]]], embedder: PrototypeEmbedder, tmp_path: Path
) -> None:
    summary = audited(planted[0], embedder, tmp_path).summary()
    assert summary["num_samples"] == 3 * PER_CLASS + 3
    by_id = {entry["wnid"]: entry for entry in summary["classes"]}
    assert by_id["n13744304"]["share"] > 0.7 and 0 < by_id["n13742358"]["diversity"] < 1
    assert by_id["n13742358"]["found"]["blank"] == 1 and "blank" not in by_id["n13744304"]["found"]
    shares = [other["share"] for other in by_id["n13742573"]["runner_ups"]]
    assert shares == sorted(shares, reverse=True)
    assert by_id["n13742573"]["share"] + sum(shares) == pytest.approx(1, abs=1e-3)


def test_audit__continues_where_it_was_stopped(
    planted: tuple[Path, dict[str, set[str]]],
    embedder: PrototypeEmbedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[int] = []
    look = Reader._look

    def stopping(self: Reader, shard: int, on_images: Any) -> Any:
        checked.append(shard)
        if len(checked) == 3:
            raise KeyboardInterrupt
        return look(self, shard, on_images)

    monkeypatch.setattr(Reader, "_look", stopping)
    with pytest.raises(KeyboardInterrupt):
        audited(planted[0], embedder, tmp_path)
    once = audited(planted[0], embedder, tmp_path)
    assert checked[:4] == [0, 1, 2, 2] and len(checked) == 1 + len(read_manifest(open_storage(planted[0])).shards)
    again = audited(planted[0], embedder, tmp_path)
    assert again.images().equals(once.images()) and len(checked) == len(set(checked)) + 1
    assert audited(planted[0], embedder, tmp_path / "fresh").images().equals(once.images())


def test_audit__diversity_is_the_mean_over_pairs(
    planted: tuple[Path, dict[str, set[str]]], embedder: PrototypeEmbedder, tmp_path: Path
) -> None:
    found = audited(planted[0], embedder, tmp_path)
    shards = range(len(found.manifest.shards))
    opened = Reader(*_reader(planted[0], embedder, tmp_path))
    embeddings = np.concatenate([opened.read(shard).embeddings for shard in shards]).astype(np.float32)
    rows = (found.findings.labels == 2) & ~found.findings.is_blank
    products = embeddings[rows] @ embeddings[rows].T
    expected = 1 - products[~np.eye(rows.sum(), dtype=bool)].mean()
    assert found.summary()["classes"][2]["diversity"] == pytest.approx(expected, abs=2e-3)


def _reader(clone: Path, embedder: Any, cache: Path) -> Any:
    from builders.format.open_clone import open_clone

    return open_clone(clone), embedder, cache / "audit", 5, 1


def test_audit__without_a_model_checks_only_the_images(
    planted: tuple[Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    found = audited(planted[0], None, tmp_path)
    assert list(found.summary()["found"]) == ["broken", "blank", "duplicate", "nsfw"]
    assert len(found.keys(["blank", "duplicate"])) == 2 and "predicted" not in found.images().column_names
    with pytest.raises(UserError, match="'label' needs an image-text model"):
        found.keys(["label"])


def test_audit__finds_a_broken_image(finished: tuple[Path, Manifest], clone: Path, tmp_path: Path) -> None:
    shard = clone / finished[1].shards[0].name
    content = shard.read_bytes()
    start = content.index(b"\xff\xd8\xff")
    shard.write_bytes(content[:start] + bytes(60) + content[start + 60 :])
    found = audited(clone, WordEmbedder(), tmp_path)
    assert len(found.keys(["broken"])) == 1 and found.summary()["found"]["nsfw"] == 0
    broken = next(row for row in found.images().to_pylist() if row["findings"] == ["broken"])
    assert broken["predicted"] == -1 and broken["duplicate_of"] == ""


def test_audit__of_a_shard_without_valid_images_fits_the_gallery(
    finished: tuple[Path, Manifest], clone: Path, tmp_path: Path
) -> None:
    shard = clone / finished[1].shards[0].name
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0"))
    found = audited(clone, WordEmbedder(), tmp_path)
    assert len(found.keys(["broken"])) == finished[1].shards[0].num_samples
    found.write(open_storage(tmp_path / "audit"))
    site = write_gallery(str(clone), tmp_path / "site", audit=str(tmp_path / "audit"), per_class=60).parent
    assert any('"broken"' in path.read_text() for path in (site / "data" / "classes").iterdir())


def command(*arguments: object) -> in_process.Ended:
    return in_process.call(cli.main, *arguments)


def test_audit_command__writes_card_gallery_and_list_of_keys(
    planted: tuple[Path, dict[str, set[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setenv("FAKEIT_CACHE", str(tmp_path / "cache"))
    clone = Path(shutil.copytree(planted[0], tmp_path / "clone"))
    before = {path: path.read_bytes() for path in (clone / "data").rglob("*.tar")}
    done = command("audit", clone, "--write-exclude", tmp_path / "skip.txt", "--exclude", "blank", "duplicate")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in (clone / "data").rglob("*.tar")} == before
    keys = (tmp_path / "skip.txt").read_text().split()
    assert len(keys) == 2 and json.loads((clone / "audit.json").read_text())["found"]["blank"] == 1
    assert "## What an audit found" in (clone / "README.md").read_text()
    assert list(verify_clone(str(clone), deep=True)) == []
    loaded = datasets.load_dataset(str(clone), split="test", cache_dir=str(tmp_path / "hf"))
    assert len(loaded) == 3 * PER_CLASS + 3
    site = write_gallery(str(clone), tmp_path / "site", per_class=2).parent
    shown = json.loads((site / "data" / "audit.js").read_text().removeprefix("gallery.audit(").removesuffix(");\n"))
    assert {entry["wnid"] for entry in shown["classes"]} == {"n13742358", "n13742573", "n13744304"}
    zeros = (site / "data" / "classes" / "n13742358.js").read_text()
    assert all(key in zeros for key in keys) and '["blank"],"blank"' in zeros and '"duplicate (of ' in zeros


def test_audit__of_an_earlier_state_leaves_the_card(planted: tuple[Path, dict[str, set[str]]], tmp_path: Path) -> None:
    import shutil

    clone = Path(shutil.copytree(planted[0], tmp_path / "clone"))
    audited(clone, None, tmp_path).write(open_storage(clone))
    summary = json.loads((clone / "audit.json").read_text())
    assert b"What an audit found" in clone_card(open_storage(clone), read_manifest(open_storage(clone)))
    (clone / "audit.json").write_text(json.dumps({**summary, "digest": "0" * 64}))
    assert b"What an audit found" not in clone_card(open_storage(clone), read_manifest(open_storage(clone)))
    with pytest.raises(UserError, match="belongs to another clone"):
        write_gallery(str(clone), tmp_path / "site", audit=str(clone))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--exclude", "blurry"), "'blurry' is no kind of finding; choose from broken, blank"),
        (("--exclude", "label"), "'label' needs an image-text model"),
        (("--clip", "nowhere/clip"), "'nowhere/clip' cannot be loaded as a CLIP"),
        (("--revision", "main"), "--revision main belongs to a model; give --clip one"),
        (("--batch-size", "0"), "--batch-size 0 --workers"),
    ],
    ids=["kind", "kind-without-model", "model", "revision", "batch"],
)
def test_audit_command__mistakes_are_reported(
    finished: tuple[Path, Manifest], options: tuple[str, ...], sentence: str
) -> None:
    done = command("audit", finished[0], *options)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (finished[0] / "audit.json").exists()
