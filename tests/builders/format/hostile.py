"""Hostile tars: each is a shard whose first sample is valid."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Members = list[tuple[tarfile.TarInfo, bytes]]
GIB = 1 << 30


def header(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def block(info: tarfile.TarInfo, edit: Callable[[bytearray], object] = lambda raw: None) -> bytes:
    """Returns a header's 512 bytes, changed by `edit`, with a checksum that fits."""
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    edit(raw)
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw):06o}\0 ".encode()
    return bytes(raw)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def png(width: int, height: int) -> bytes:
    """Returns a PNG that claims another size than it has."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[16:24] = struct.pack(">II", width, height)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    return bytes(raw)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def text_bomb() -> bytes:
    """Returns a small PNG with a text chunk that unpacks to 200 MB."""
    raw = png(1, 1)
    packed = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    return raw[:33] + chunk + raw[33:]


def one(name: str, content: bytes = b"x", **fields: object) -> bytes:
    info, content = header(name, content, **fields)
    return block(info) + padded(content)


def sized(size_field: bytes) -> bytes:
    info, _ = header("n01_00000001.cls")

    def edit(raw: bytearray) -> None:
        raw[124:136] = size_field.ljust(12, b"\0")

    return block(info, edit) + padded(b"0")


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    body = b""
    for name, value in records.items():
        line = f" {name}={value}\n".encode()
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length = len(str(length)) + len(line)
        body += str(length).encode() + line
    return one("pax", body, type=kind) + one("n01_00000001.cls", b"0")


JSON = json.dumps({"prompt": "x"}).encode()

HOSTILE: dict[str, bytes] = {
    "symbolic link": one("n01_00000001.cls", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "symbolic link within": one("n01_00000001.cls", b"", type=tarfile.SYMTYPE, linkname="n01_00000000.cls"),
    "hard link": one("n01_00000001.cls", b"", type=tarfile.LNKTYPE, linkname="n01_00000000.cls"),
    "plain file with a link's name": one("n01_00000001.cls", b"0", linkname="/etc/passwd"),
    "character device": one("n01_00000001.cls", b"", type=tarfile.CHRTYPE),
    "block device": one("n01_00000001.cls", b"", type=tarfile.BLKTYPE),
    "pipe": one("n01_00000001.cls", b"", type=tarfile.FIFOTYPE),
    "directory": one("n01_00000001.cls", b"", type=tarfile.DIRTYPE),
    "directory of old tars": one("n01.cls/", b""),
    "contiguous file": one("n01_00000001.cls", b"0", type=tarfile.CONTTYPE),
    "unknown type": one("n01_00000001.cls", b"0", type=b"Z"),
    "absolute name": one("/etc/n01_00000001.cls", b"0"),
    "name that climbs": one("../../n01_00000001.cls", b"0"),
    "name that climbs within": one("a/../../n01_00000001.cls", b"0"),
    "name in a folder": one("a/n01_00000001.cls", b"0"),
    "name of Windows": one("C:\\n01_00000001.cls", b"0"),
    "name with a line break": one("n01\n_00000001.cls", b"0"),
    "name with a terminal's escape": one("\x1b[2J.cls", b"0"),
    "name in no encoding": block(header("n01.cls")[0], lambda raw: raw.__setitem__(slice(0, 3), b"\xff\xfe\xfd"))
    + padded(b""),
    "empty name": one("", b"0"),
    "only an extension": one(".cls", b"0"),
    "no extension": one("n01_00000001", b"0"),
    "pickle": one("n01_00000001.pkl", b"cos\nsystem\n(S'touch /tmp/pwned'\ntR."),
    "pickle by another name": one("n01_00000001.pyd", b"\x80\x04."),
    "torch file": one("n01_00000001.pth", b"PK\x03\x04"),
    "python": one("n01_00000001.py", b"import os"),
    "upper-case extension": one("n01_00000001.JPG", b"x"),
    "size that is negative": sized(b"\xff" * 12),
    "size of eight exabytes": sized(b"\x80" + bytes(3) + (2**63 - 1).to_bytes(8, "big")),
    "size of eight gigabytes": sized(f"{8 * GIB - 1:011o}".encode()),
    "size that is no number": sized(b"zzzzzzzzzzz"),
    "size beyond the end": sized(f"{40_960:011o}".encode()),
    "wrong checksum": one("n01_00000001.cls", b"0")[:148] + b"0000000\0" + one("n01_00000001.cls", b"0")[156:],
    "pax size": pax({"size": str(8 * GIB)}),
    "pax name": pax({"path": "../../etc/passwd"}),
    "pax link": pax({"linkpath": "/etc/passwd"}),
    "pax for all": pax({"path": "n01_00000000.cls"}, tarfile.XGLTYPE),
    "pax without an end": one("pax", b"99999999999 path=", type=tarfile.XHDTYPE),
    "pax of Solaris": pax({"path": "x"}, tarfile.SOLARIS_XHDTYPE),
    "pax sparse": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(GIB)}),
    "sparse file": one("n01_00000001.cls", b"0", type=tarfile.GNUTYPE_SPARSE),
    "long name of GNU": one("././@LongLink", b"a" * 5000, type=tarfile.GNUTYPE_LONGNAME)
    + one("n01_00000001.cls", b"0"),
    "long link of GNU": one("././@LongLink", b"/etc/passwd\0", type=tarfile.GNUTYPE_LONGLINK) + one("n01.cls", b"0"),
    "cut in a header": one("n01_00000001.cls", b"0")[:300],
    "cut in a member": one("n01_00000001.cls", b"0" * 5000)[:2000],
    "zeros, then more": bytes(512) + one("n01_00000001.cls", b"0"),
    "gzip": b"\x1f\x8b" + bytes(510),
    "html": b"<html><body>404</body></html>".ljust(512),
}
"""What follows the first sample, in tars that cannot be read to their end."""

UNTRUE: dict[str, bytes] = {
    "sample twice": one("n01_00000001.cls", b"0") + one("n01_00000001.jpg", jpeg()) + one("n01_00000001.cls", b"1"),
    "same member twice": one("n01_00000001.cls", b"0") + one("n01_00000001.cls", b"1"),
    "label that is no number": one("n01_00000001.cls", b"0; rm -rf /") + one("n01_00000001.jpg", jpeg()),
    "label of many digits": one("n01_00000001.cls", b"9" * 5000)
    + one("n01_00000001.jpg", jpeg())
    + one("n01_00000001.json", JSON),
    "negative label": one("n01_00000001.cls", b"-1") + one("n01_00000001.jpg", jpeg()) + one("n01_00000001.json", JSON),
    "json of many brackets": one("a.cls", b"0") + one("a.jpg", jpeg()) + one("a.json", b"[" * 100_000),
    "json of not a number": one("a.cls", b"0") + one("a.jpg", jpeg()) + one("a.json", b'{"seed": NaN}'),
    "json in no encoding": one("a.cls", b"0") + one("a.jpg", jpeg()) + one("a.json", b'{"\xff": 1}'),
    "image of four billion pixels": one("a.cls", b"0") + one("a.png", png(65_000, 65_000)) + one("a.json", JSON),
    "image without pixels": one("a.cls", b"0") + one("a.png", png(0, 0)) + one("a.json", JSON),
    "image with a bomb of text": one("a.cls", b"0") + one("a.png", text_bomb()) + one("a.json", JSON),
    "image that is a script": one("a.cls", b"0") + one("a.jpg", b"%!PS\n(%pipe%id)(r) file") + one("a.json", JSON),
    "image that is SVG": one("a.cls", b"0") + one("a.jpg", b"<svg onload='x'/>") + one("a.json", JSON),
}
"""What follows the first sample, in tars that can be read to their end but hold invalid samples."""


def write(path: Path, tail: bytes, *, ended: bool = True) -> None:
    """Replaces the end of the shard at `path` with `tail`."""
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(padded(content) + tail + (bytes(10_240) if ended else b""))
