"""Lists and reads the files of hf_xet's local store, which clients fill if the Hub names one ("local:///dir").

A shard of the store lists its files in records of 48 bytes:
- a header with hash, flags and number of segments of the file;
- the segments, each with its length;
- as many verification records, if the flags say so;
- the sha256 of the file, if the flags say so.
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
    # The first record is the header of the shard.
    found, offset = [], RECORD
    while content[offset : offset + 32] != END:
        file_hash, flags, num_segments = struct.unpack_from("<32sII", content, offset)
        offset += RECORD
        sizes = [struct.unpack_from("<I", content, offset + RECORD * n + 36)[0] for n in range(num_segments)]
        offset += RECORD * num_segments * (2 if flags & HAS_VERIFICATION else 1)
        sha256 = None
        if flags & HAS_SHA256:
            sha256 = _hex(content[offset : offset + 32])
            offset += RECORD
        found.append(XetFile(_hex(file_hash), sum(sizes), sha256))
    return found


def _hex(raw: bytes) -> str:
    """Formats a hash as hf_xet does: four little-endian words of 64 bits, each as a hexadecimal number."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
