"""Plants 200 faults of 24 kinds in small clones: `verify --deep` finds each of them, and none in intact clones.

After a fault inside a shard, checksums, totals, timm's index and the card are updated, so that only the fault itself
can be found.

python -m tests.acceptance.accept_verify
"""

import hashlib
import io
import json
import random
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.card.render import clone_card
from builders.format.manifest import parse_manifest, timm_index
from builders.images.encode import encode_image
from builders.images.read import decode_image
from builders.storage.base import open_storage
from builders.verification.verify_clone import verify_clone
from tests.acceptance.record import record, run

NUM_FAULTS = 200
FORMATS = ("jpg", "png", "webp")
Members = list[tuple[str, bytes]]


@dataclass
class Target:
    """A clone to be damaged, with the shard and the sample that were chosen for it."""

    root: Path
    rng: random.Random

    def __post_init__(self) -> None:
        self.manifest = parse_manifest((self.root / "clone.json").read_bytes(), "clone.json")
        self.number = self.rng.randrange(len(self.manifest.shards))
        self.entry = self.manifest.shards[self.number]
        self.shard = self.root / self.entry.name
        self.members = self.read()
        self.row = self.rng.randrange(len(self.members) // 3)
        self.key = self.members[3 * self.row][0].partition(".")[0]

    def read(self) -> Members:
        with tarfile.open(self.shard) as tar:
            return [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]

    def write(self, members: Members) -> None:
        with tarfile.TarFile(self.shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o444
                tar.addfile(info, io.BytesIO(content))
        self.forge()

    def forge(self, **changes: object) -> None:
        """Updates manifest, index and card to the current content of the shard."""
        content = self.shard.read_bytes()
        facts = {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **changes}
        shards = list(self.manifest.shards)
        shards[self.number] = replace(self.entry, **facts)  # type: ignore[arg-type]
        manifest = replace(self.manifest, shards=shards)
        (self.root / "clone.json").write_bytes(manifest.to_json())
        (self.root / "_info.json").write_bytes(timm_index(manifest))
        (self.root / "README.md").write_text(clone_card(open_storage(self.root), manifest).decode())

    def change(self, member: int, edit: Callable[[bytes], bytes]) -> None:
        """Edits the cls (0), image (1) or json (2) of the chosen sample."""
        members = list(self.members)
        number = 3 * self.row + member
        members[number] = (members[number][0], edit(members[number][1]))
        self.write(members)

    def set_fields(self, **fields: object) -> None:
        self.change(2, lambda content: json.dumps({**json.loads(content), **fields}).encode())

    def fields(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.members[3 * self.row + 2][1])
        return found

    def swap_image(self, edit: Callable[[bytes], bytes]) -> None:
        """Replaces the image and puts its sha256 into the json."""
        image = edit(self.members[3 * self.row + 1][1])
        fields = {**self.fields(), "sha256": hashlib.sha256(image).hexdigest()}
        name = self.members[3 * self.row + 1][0]
        self.members[3 * self.row + 1] = (name, image)
        self.members[3 * self.row + 2] = (self.members[3 * self.row + 2][0], json.dumps(fields).encode())
        self.write(self.members)


Expected = tuple[str, str, str]
"""Shard or file, key ("" for any), and words of the fault that `verify` must report."""


def missing_shard(p: Target) -> Expected:
    p.shard.unlink()
    return p.entry.name, "", "missing"


def extra_shard(p: Target) -> Expected:
    other = p.shard.with_name(f"train-{p.rng.randrange(100, 999999):06d}.tar")
    shutil.copy(p.shard, other)
    return f"data/000/{other.name}", "", "extra"


def renamed_shard(p: Target) -> Expected:
    p.shard.rename(p.shard.with_name(f"train-{p.rng.randrange(100, 999999):06d}.tar"))
    return p.entry.name, "", "missing"


def changed_byte(p: Target) -> Expected:
    content = bytearray(p.shard.read_bytes())
    content[p.rng.randrange(len(content))] ^= 1 << p.rng.randrange(8)
    p.shard.write_bytes(content)
    return p.entry.name, "", "sha256 is"


def cut_in_a_member(p: Target) -> Expected:
    with tarfile.open(p.shard) as tar:
        member = p.rng.choice([m for m in tar if m.size > 1])
    p.shard.write_bytes(p.shard.read_bytes()[: member.offset_data + p.rng.randrange(1, member.size)])
    p.forge()
    return p.entry.name, "", "cut"


def cut_between_members(p: Target) -> Expected:
    with tarfile.open(p.shard) as tar:
        member = p.rng.choice(list(tar)[1:])
    p.shard.write_bytes(p.shard.read_bytes()[: member.offset])
    p.forge()
    return p.entry.name, "", "cut"


def sample_left_out(p: Target) -> Expected:
    p.write(p.members[: 3 * p.row] + p.members[3 * p.row + 3 :])
    p.forge(num_samples=p.entry.num_samples - 1)
    return p.entry.name, p.key, "the sample is missing"


def wrong_count(p: Target) -> Expected:
    p.forge(num_samples=p.entry.num_samples + p.rng.choice([-1, 1, 7]))
    return p.entry.name, "", "clone.json says"


def duplicated_key(p: Target) -> Expected:
    sample, where = p.members[3 * p.row : 3 * p.row + 3], 3 * p.rng.randrange(len(p.members) // 3)
    p.write(p.members[:where] + sample + p.members[where:])
    return p.entry.name, p.key, "the key occurs twice"


def dot_in_key(p: Target) -> Expected:
    members = [(n.replace("_", ".", 1) if i // 3 == p.row else n, c) for i, (n, c) in enumerate(p.members)]
    p.write(members)
    return p.entry.name, p.key.replace("_", ".", 1), "the key has a dot"


def other_key(p: Target) -> Expected:
    key = f"{p.key[:-4]}9999"
    p.write([(n.replace(p.key, key) if i // 3 == p.row else n, c) for i, (n, c) in enumerate(p.members)])
    return p.entry.name, key, "the recipe has no such sample"


def other_label(p: Target) -> Expected:
    label = int(p.members[3 * p.row][1])
    p.change(0, lambda content: str(p.rng.choice([n for n in range(10) if n != label])).encode())
    return p.entry.name, p.key, "the label says"


def other_json(p: Target) -> Expected:
    name, value = p.rng.choice(
        [
            ("prompt", "a cat"),
            ("seed", 7),
            ("index", 4321),
            ("wnid", "n00000001"),
            ("guidance_scale", 3.25),
            ("attempt", 2),
        ]
    )
    p.set_fields(**{name: value})
    return p.entry.name, p.key, "says"


def label_out_of_range(p: Target) -> Expected:
    p.change(0, lambda content: str(p.rng.choice([-1, 10, 99999])).encode())
    return p.entry.name, p.key, "out of range"


def missing_field(p: Target) -> Expected:
    name = p.rng.choice(list(p.fields()))
    p.change(2, lambda content: json.dumps({k: v for k, v in json.loads(content).items() if k != name}).encode())
    return p.entry.name, p.key, f"lacks the field '{name}'"


def null_field(p: Target) -> Expected:
    name = p.rng.choice(list(p.fields()))
    p.set_fields(**{name: None})
    return p.entry.name, p.key, f"'{name}' is None"


def retyped_field(p: Target) -> Expected:
    name, value = p.rng.choice(list(p.fields().items()))
    p.set_fields(**{name: [value] if isinstance(value, str) else str(value)})
    return p.entry.name, p.key, f"json field '{name}' is"


def undecodable_image(p: Target) -> Expected:
    p.swap_image(lambda image: image[: p.rng.randrange(len(image) // 3, len(image) * 2 // 3)])
    return p.entry.name, p.key, "image"


def image_of_other_size(p: Target) -> Expected:
    image_format = p.manifest.image_format
    p.swap_image(lambda image: encode_image(decode_image(image)[: p.rng.randrange(8, 31)], image_format, 95))
    return p.entry.name, p.key, "its json says 32x32"


def image_of_other_sha256(p: Target) -> Expected:
    image_format = p.manifest.image_format
    p.change(1, lambda image: encode_image(decode_image(image)[::-1].copy(), image_format, 95))
    return p.entry.name, p.key, "another sha256"


def stale_index(p: Target) -> Expected:
    path = p.root / "_info.json"
    path.write_text(path.read_text().replace(str(p.entry.num_samples), str(p.entry.num_samples + 1), 1))
    return "_info.json", "", "stale"


def stale_card(p: Target) -> Expected:
    path = p.root / "README.md"
    lines = path.read_text().splitlines(keepends=True)
    first = lines.index("dataset_info:\n") + 1
    del lines[p.rng.randrange(first, first + 8)]
    path.write_text("".join(lines))
    return "README.md", "", "stale"


def stale_parquet(p: Target) -> Expected:
    path = p.root / "metadata/train-00000.parquet"
    file = pq.ParquetFile(path)
    tables = [file.read_row_group(number) for number in range(file.num_row_groups)]
    column = p.rng.choice([n for n in tables[0].schema.names if n not in ("key", "shard")])
    members = tables[p.number]
    values = members[column].to_pylist()
    old = values[p.row]
    values[p.row] = old + "x" if isinstance(old, str) else old + 1
    index, field = members.schema.get_field_index(column), members.schema.field(column)
    tables[p.number] = members.set_column(index, field, pa.array(values, field.type))
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for members in tables:
            writer.write_table(members)
    assert pc.any(pc.equal(tables[p.number]["key"], p.key)).as_py()
    return p.entry.name, p.key, "metadata"


KINDS = (
    missing_shard, extra_shard, renamed_shard, changed_byte, cut_in_a_member, cut_between_members, sample_left_out,
    wrong_count, duplicated_key, dot_in_key, other_key, other_label, other_json, label_out_of_range, missing_field,
    null_field, retyped_field, undecodable_image, image_of_other_size, image_of_other_sha256,
    stale_index, stale_card, stale_parquet,
)  # fmt: skip


def is_found(root: Path, expected: Expected) -> bool:
    name, key, words = expected
    return any(
        fault.where == name and (not key or fault.key == key) and words in fault.text
        for fault in verify_clone(str(root), deep=True)
    )


def main() -> None:
    rng = random.Random(0)
    found: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    num_intact = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image_format in FORMATS:
            options = ("--shard-size", 40, "--num-inference-steps", 4, "--image-format", image_format, "--workers", 2)
            run(
                "build",
                "make",
                "digits_sd/c_h_inside_b_cfg2",
                folder / image_format,
                "--images-per-class",
                14,
                *options,
            )
            for deep in (False, True):
                assert list(verify_clone(str(folder / image_format), deep=deep)) == []
                num_intact += 1
        for number in range(NUM_FAULTS):
            kind = KINDS[number % len(KINDS)]
            root = folder / "damaged"
            shutil.copytree(folder / rng.choice(FORMATS), root)
            expected = kind(Target(root, rng))
            planted[kind.__name__] += 1
            if is_found(root, expected):
                found[kind.__name__] += 1
            else:
                print("NOT FOUND", kind.__name__, expected, *verify_clone(str(root), deep=True), sep="\n  ")
            shutil.rmtree(root)
    lines = [
        f"Three clones of 140 digits (jpg, png, webp), {NUM_FAULTS} faults of {len(KINDS)} kinds at random positions,",
        "`verify --deep`. A fault counts as found if a line names its shard or file, its key if it has one, and the",
        "fault itself.",
        "",
        f"- found: **{found.total()} of {NUM_FAULTS}**",
        f"- faults reported in intact clones, in {num_intact} runs with and without --deep: **0**",
        "",
        "| kind | planted | found |",
        "|---|---|---|",
        *[
            f"| {kind.__name__.replace('_', ' ')} | {planted[kind.__name__]} | {found[kind.__name__]} |"
            for kind in KINDS
        ],
    ]
    record("verify", "Faults planted and found by `verify --deep`", lines)
    assert found.total() == NUM_FAULTS


if __name__ == "__main__":
    main()
