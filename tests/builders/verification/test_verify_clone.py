import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.images.encode import encode_image
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.verification.verify_clone import verify_clone
from tests.acceptance.accept_verify import Target

SHARD = "data/000/test-000001.tar"


def faults(clone: Path, *, deep: bool = False) -> str:
    return "\n".join(map(str, verify_clone(str(clone), deep=deep)))


def edit_members(clone: Path, edit: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    """Rewrites a shard with its members changed, and writes the new size and hash to clone.json, as a forger would."""
    path = clone / SHARD
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    with tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in edit(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    manifest = json.loads((clone / "clone.json").read_text())
    entry = manifest["shards"][1]
    entry |= {"num_bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest["num_bytes"] = sum(shard["num_bytes"] for shard in manifest["shards"])
    manifest["digest"] = hashlib.sha256("\n".join(s["sha256"] for s in manifest["shards"]).encode()).hexdigest()
    (clone / "clone.json").write_text(json.dumps(manifest))


def change(
    extension: str, edit: Callable[[bytes], bytes]
) -> Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]:
    """Returns a function that changes one member of the fourth sample."""

    def apply(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        where = 9 + ("cls", "jpg", "json").index(extension)
        return [(n, edit(c) if i == where else c) for i, (n, c) in enumerate(members)]

    return apply


def set_field(**values: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


def drop_field(content: bytes) -> bytes:
    fields = json.loads(content)
    del fields["prompt"]
    return json.dumps(fields).encode()


def lengthen(path: Path) -> None:
    """Adds a row group to a metadata file, as in a longer clone."""
    file = pq.ParquetFile(path)
    tables = [file.read_row_group(number) for number in range(file.num_row_groups)]
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        for table in [*tables, tables[-1]]:
            writer.write_table(table)


def retype(path: Path) -> None:
    """Turns the seeds of a metadata file into strings."""
    table = pq.read_table(path)
    seeds = pa.array([str(seed) for seed in table["seed"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("seed"), "seed", seeds), path, row_group_size=20)


OTHER_IMAGE = encode_image(np.zeros((8, 8, 3), np.uint8), "jpg", 95)


def test_verify_clone__fields_of_later_versions_are_ignored(clone: Path) -> None:
    path = clone / "metadata/test-00000.parquet"
    file = pq.ParquetFile(path)
    tables = [file.read_row_group(number) for number in range(file.num_row_groups)]
    tables = [table.append_column("later", pa.array(["x"] * table.num_rows)) for table in tables]
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    content = json.loads((clone / "clone.json").read_text())
    content["metadata"][0] |= {
        "num_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    content["later"] = content["shards"][0]["later"] = content["shards"][0]["verdicts"]["later"] = 1
    (clone / "clone.json").write_text(json.dumps(content))
    assert faults(clone, deep=True) == ""


def test_verify_clone__json_fields_of_later_versions_are_ignored(clone: Path) -> None:
    Target(clone, random.Random(0)).set_fields(later=1)
    # The metadata has the old sizes: verify reports that the members have moved, and nothing about the field.
    assert "later" not in faults(clone, deep=True)


@pytest.mark.parametrize("deep", [False, True])
def test_verify_clone__an_intact_clone_has_no_faults(clone: Path, deep: bool) -> None:
    assert faults(clone, deep=deep) == ""


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change("cls", lambda c: b"77"), "label 77 is out of range 0 to 9"),
        (change("cls", lambda c: b"x"), "cannot be read"),
        (change("cls", lambda c: b"9" if c != b"9" else b"8"), "the label says"),
        (change("json", set_field(index=12345)), "the key is not"),
        (change("json", set_field(wnid="n00000001")), "json says wnid n00000001"),
        (change("json", drop_field), "lacks the field 'prompt'"),
        (change("json", set_field(prompt=None)), "'prompt' is None, not of type str"),
        (change("json", set_field(guidance_scale=2)), "'guidance_scale' is 2, not of type float"),
        (change("json", set_field(index=True)), "'index' is True, not of type int"),
        (change("json", set_field(width=33)), "its json says 33x32"),
        (change("json", set_field(prompt="another")), "the metadata row disagrees with the tar"),
        (change("jpg", lambda c: OTHER_IMAGE), "another sha256"),
        (change("jpg", lambda c: b"no image"), "not a jpg, png or webp"),
        (lambda m: m[:-3], "holds 19 samples"),
        (lambda m: m + m[-3:], "holds 21 samples"),
        (lambda m: m[1:], "members are"),
        (lambda m: [("a.b." + n if i < 3 else n, c) for i, (n, c) in enumerate(m)], "the key has a dot"),
        (lambda m: [*m, ("x.pyd", b"")], "member 'x.pyd' has another extension than cls"),
        (lambda m: m + m[:3], "the key occurs twice"),
        (lambda m: m[:3] + m[:3] + m[6:], "the sample is missing, and 0 more are"),
        (lambda m: m[3:6] + m[:3] + m[6:], "not in the order of the plan"),
        (
            lambda m: [(n.replace("_0000", "_0009") if i < 3 else n, c) for i, (n, c) in enumerate(m)],
            "has no such sample",
        ),
        (change("json", set_field(seed=5)), "json says seed 5, the recipe says"),
        (change("json", set_field(attempt=10)), "json says attempt 10, but there are 10"),
        (change("json", set_field(attempt=1)), "json says seed"),
        (change("json", set_field(nsfw=1)), "its verdicts are"),
        (change("json", set_field(nsfw=7)), "json says nsfw 7, which no image of the shard has"),
        (change("json", set_field(attempt=1)), "json says attempt 1, which no image of the shard has"),
        (change("json", set_field(broken=1)), "json says broken 1, which no image of the shard has"),
        (change("json", set_field(batch_size=3)), "json says batch_size 3, which no image of the shard has"),
        (change("json", set_field(vae_dtype="float32")), "json says vae_dtype 'float32', which no image"),
        (change("json", set_field(batch_slot=16)), "json says batch_slot 16, which no image"),
        (change("json", set_field(dtype="banana")), "json says dtype 'banana', the recipe says"),
        (change("json", set_field(model="x")), "json says model 'x', the recipe says 'class folders'"),
    ],
)
def test_verify_clone__forged_samples_are_found(
    clone: Path, edit: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]], words: str
) -> None:
    edit_members(clone, edit)
    found = faults(clone)
    assert words in found and SHARD in found


def test_verify_clone__a_truncated_image_is_found_only_by_decoding(clone: Path) -> None:
    def cut(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        image = members[10][1][:-200]
        fields = set_field(sha256=hashlib.sha256(image).hexdigest())(members[11][1])
        return [*members[:10], (members[10][0], image), (members[11][0], fields), *members[12:]]

    edit_members(clone, cut)
    assert "does not decode" not in faults(clone)
    assert "does not decode" in faults(clone, deep=True)


def test_verify_clone__several_workers_find_the_same_as_one(
    real_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.verification.verify_clone.BYTES_PER_WORKER", {True: 1, False: 1})
    out = tmp_path / "clone"
    manifest = make_clone(Plan(replace(real_plan.recipe, shard_size=10), 10), str(out))
    assert manifest is not None
    for shard in (1, 4, 7):
        path = out / f"data/000/test-{shard:06d}.tar"
        path.write_bytes(path.read_bytes()[: 3000 * shard])
    seen: list[int] = []
    several = [str(f) for f in verify_clone(str(out), deep=True, num_workers=2, on_samples=seen.append)]
    assert several == faults(out, deep=True).split("\n") and len(several) > 9
    assert seen == [entry.num_samples for entry in manifest.shards]


@pytest.mark.parametrize("cut", [1000, 512 * 4, 512 * 30 + 17, -600])
def test_verify_clone__a_cut_tar_is_found(clone: Path, cut: int) -> None:
    path = clone / SHARD
    path.write_bytes(path.read_bytes()[:cut])
    found = faults(clone)
    assert "sha256 is" in found and "bytes, clone.json says" in found
    assert "cut" in found or cut == -600  # -600 removes only padding after the end marker


@pytest.mark.parametrize("where", [1, 600, 700, 20_000, -1])
def test_verify_clone__one_changed_byte_is_found(clone: Path, where: int) -> None:
    content = bytearray((clone / SHARD).read_bytes())
    content[where] ^= 1
    (clone / SHARD).write_bytes(content)
    assert f"{SHARD}: sha256 is" in faults(clone)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / SHARD).unlink(), f"{SHARD}: missing"),
        (lambda c: shutil.copy(c / SHARD, c / "data/000/test-000009.tar"), "test-000009.tar: extra file"),
        (lambda c: (c / SHARD).rename(c / "data/000/x.tar"), "data/000/x.tar: extra file"),
        (lambda c: (c / "_info.json").write_text("{}"), "_info.json: stale"),
        (lambda c: (c / "README.md").unlink(), "README.md: missing"),
        (lambda c: (c / "README.md").write_text("old"), "README.md: stale"),
        (lambda c: (c / "metadata/test-00000.parquet").unlink(), "metadata/test-00000.parquet: missing"),
        (lambda c: (c / "metadata/test-00000.parquet").write_bytes(b"x" * 99), "cannot be read"),
        (lambda c: lengthen(c / "metadata/test-00000.parquet"), "test-00000.parquet: stale: its row groups"),
        (lambda c: pq.write_table(pa.table({"key": ["a"]}), c / "metadata/test-00000.parquet"), "lacks columns"),
        (lambda c: retype(c / "metadata/test-00000.parquet"), "columns are not"),
    ],
)
def test_verify_clone__damaged_files_are_found(clone: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(clone)
    assert words in faults(clone)


def die(*arguments: object) -> None:
    os._exit(1)


def test_verify_clone__a_worker_that_dies_is_reported(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builders.verification.verify_clone.BYTES_PER_WORKER", {False: 1, True: 1})
    monkeypatch.setattr("builders.verification.verify_clone._work", die)
    with pytest.raises(UserError, match="a worker process died"):
        list(verify_clone(str(clone), num_workers=2))
