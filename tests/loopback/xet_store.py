"""hf_xet's local store, which clients fill where the Hub names it ("local:///dir"): its files, and their bytes.

A shard of the store lists files in records of 48 bytes: a header with the file's hash, flags and number of segments; the
segments, each with its length; as many verification records, if the flags say so; and the file's sha256, if they say so.
"""

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

RECORD = 48
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30
END = b"\xff" * 32


@dataclass(frozen=True)
class XetFile:
    xet_hash: str
    size: int
    sha256: str | None


def known_files(store: Path) -> list[XetFile]:
    return [file for shard in store.rglob("shards/*.mdb") for file in _read_shard(shard.read_bytes())]


def read_file(store: Path, file: XetFile) -> bytes:
    import hf_xet

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "file"
        session = hf_xet.XetSession()
        with session.new_file_download_group(
            endpoint=f"local://{store}", token="x", token_expiry_unix_secs=1 << 40
        ) as batch:
            batch.start_download_file(hf_xet.XetFileInfo(file.xet_hash, file.size), str(target))
        return target.read_bytes()


def _read_shard(content: bytes) -> list[XetFile]:
    found, where = [], RECORD  # the shard's own header
    while content[where : where + 32] != END:
        file_hash, flags, num_segments = struct.unpack_from("<32sII", content, where)
        where += RECORD
        sizes = [struct.unpack_from("<I", content, where + RECORD * n + 36)[0] for n in range(num_segments)]
        where += RECORD * num_segments * (2 if flags & HAS_VERIFICATION else 1)
        sha256 = None
        if flags & HAS_SHA256:
            sha256 = _hex(content[where : where + 32])
            where += RECORD
        found.append(XetFile(_hex(file_hash), sum(sizes), sha256))
    return found


def _hex(raw: bytes) -> str:
    """Hashes are four little-endian words, each written as a number."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
