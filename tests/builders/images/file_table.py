"""Small image files of many kinds: container × mode × orientation × damage, 40 × 40 pixels each.

Each entry says which pixels a file has and whether it is lossless. The reference is Pillow and numpy alone.
"""

import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 40
Array = NDArray[Any]


@dataclass(frozen=True)
class File:
    name: str
    content: bytes
    expected: NDArray[np.uint8] | None
    """RGB pixels that a viewer shows; None if the file cannot be read."""
    is_lossless: bool


def image() -> NDArray[np.uint8]:
    """Returns an image that looks different in every orientation.

    It is smooth, so that JPEG keeps it within 2 gray levels.
    """
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return np.rint(np.stack([60 + 100 * down, 70 + 100 * across, 90 + 40 * down], axis=-1)).astype(np.uint8)


RGB = image()
GRAY = RGB[..., 0]
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a),
}
"""The change that each EXIF orientation makes to the stored pixels, by the standard."""


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return bytes(found.tobytes())


def lossless(form: str) -> dict[str, Any]:
    options: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True, "quality": 100},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    return options.get(form, {})


def decoded(content: bytes) -> NDArray[np.uint8]:
    """Returns the pixels that Pillow decodes, not turned: the only reference for lossy formats."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def as_rgb(gray: Array) -> NDArray[np.uint8]:
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)


def plain() -> Iterator[File]:
    """Yields every container with the modes that it holds, upright."""
    modes = {"RGB": (Image.fromarray(RGB), RGB), "L": (Image.fromarray(GRAY), as_rgb(GRAY))}
    bits = (GRAY > 100).astype(np.uint8) * 255
    modes["1"] = (Image.fromarray(bits).convert("1"), as_rgb(bits))
    palette = Image.fromarray(GRAY).convert("P")
    modes["P"] = (palette, np.asarray(palette.convert("RGB")))
    containers = {
        "PNG": "RGB L 1 P", "BMP": "RGB L 1 P", "TIFF": "RGB L 1 P", "GIF": "L P", "PPM": "RGB L 1", "WEBP": "RGB L",
    }  # fmt: skip
    for form, names in containers.items():
        for mode in names.split():
            image, expected = modes[mode]
            yield File(f"{form}-{mode}.{form.lower()}", saved(image, form, **lossless(form)), expected, True)
    for mode, quality, progressive in itertools.product(("RGB", "L"), (75, 95), (False, True)):
        content = saved(modes[mode][0], "JPEG", quality=quality, progressive=progressive)
        yield File(f"JPEG-{mode}-{quality}{'-progressive' * progressive}.jpg", content, decoded(content), False)
    for form, image in (("AVIF", modes["L"][0]), ("JPEG", modes["RGB"][0].convert("CMYK"))):
        content = saved(image, form, **(lossless(form) or {"quality": 95}))
        yield File(f"{form}-{image.mode}.{'avif' if form == 'AVIF' else 'jpeg'}", content, decoded(content), False)
    yield File("TIFF-CMYK.tif", saved(modes["RGB"][0].convert("CMYK"), "TIFF"), RGB, True)
    # Published datasets have files with the extension of another format.
    for form in ("PNG", "JPEG", "GIF"):
        content = saved(modes["L"][0], form)
        yield File(f"{form}-named.bmp", content, decoded(content), form != "JPEG")


def oriented() -> Iterator[File]:
    for (form, options), orientation in itertools.product(
        (("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", lossless("WEBP")), ("TIFF", {})),
        range(1, 9),
    ):
        content = saved(Image.fromarray(RGB), form, exif=exif(orientation), **options)
        stored = decoded(content) if form == "JPEG" else RGB
        yield File(f"{form}-turned-{orientation}.{form.lower()}", content, TURNS[orientation](stored), form != "JPEG")
    for orientation in range(2, 9):
        content = saved(Image.fromarray(GRAY), "JPEG", quality=95, exif=exif(orientation))
        yield File(f"JPEG-L-turned-{orientation}.jpg", content, TURNS[orientation](decoded(content)), False)
    for mode, orientation in itertools.product(("L", "P", "RGBA"), (3, 6)):
        image = Image.fromarray(RGB).convert(mode)
        expected = TURNS[orientation](np.asarray(image.convert("RGB")))
        yield File(f"PNG-{mode}-turned-{orientation}.png", saved(image, "PNG", exif=exif(orientation)), expected, True)
    content = saved(Image.fromarray(RGB), "JPEG", quality=95, exif=exif(9))
    yield File("JPEG-odd-orientation.jpg", content, decoded(content), False)


def transparent() -> Iterator[File]:
    alpha = np.where(GRAY > 100, 255, 0).astype(np.uint8)
    half = np.full_like(alpha, 128)
    over_white = np.where(alpha[..., None] > 0, RGB, 255).astype(np.uint8)
    for form in ("PNG", "WEBP", "TIFF"):
        options = {**lossless(form), **({"exact": True} if form == "WEBP" else {})}
        image = Image.fromarray(np.dstack([RGB, alpha]))
        yield File(f"{form}-RGBA.{form.lower()}", saved(image, form, **options), over_white, True)
    blended = np.asarray(
        Image.alpha_composite(Image.new("RGBA", (SIDE, SIDE), "white"), Image.fromarray(np.dstack([RGB, half])))
    )[..., :3]
    yield File("PNG-half.png", saved(Image.fromarray(np.dstack([RGB, half])), "PNG"), blended, True)
    image = Image.fromarray(np.dstack([GRAY, alpha]))
    yield File(
        "PNG-LA.png", saved(image, "PNG"), np.where(alpha[..., None] > 0, as_rgb(GRAY), 255).astype(np.uint8), True
    )
    yield File("PNG-tRNS.png", saved(Image.fromarray(RGB), "PNG", transparency=tuple(map(int, RGB[0, 0]))),
               np.where((RGB[0, 0] == RGB).all(-1, keepdims=True), 255, RGB).astype(np.uint8), True)  # fmt: skip
    palette = Image.fromarray(GRAY).convert("P")
    index = int(np.asarray(palette)[0, 0])
    shown = np.where(np.asarray(palette)[..., None] == index, 255, np.asarray(palette.convert("RGB"))).astype(np.uint8)
    for form in ("PNG", "GIF"):
        yield File(f"{form}-P-transparent.{form.lower()}", saved(palette, form, transparency=index), shown, True)


def deep() -> Iterator[File]:
    """Yields files with 16 bits and with floats."""
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    for form in ("PNG", "TIFF", "PPM"):
        expected = as_rgb(np.rint(values / 257))
        yield File(
            f"{form}-16.{'pgm' if form == 'PPM' else form.lower()}",
            saved(Image.fromarray(values), form),
            expected,
            True,
        )
    big_endian = Image.frombytes("I;16B", (SIDE, SIDE), values.astype(">u2").tobytes())
    yield File("TIFF-16-big-endian.tiff", saved(big_endian, "TIFF"), as_rgb(np.rint(values / 257)), True)
    unit = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    yield File(
        "TIFF-float-unit.tif",
        saved(Image.fromarray(unit), "TIFF"),
        as_rgb(np.rint(unit.astype(np.float64) * 255)),
        True,
    )
    yield File("TIFF-float-255.tif", saved(Image.fromarray(GRAY.astype(np.float32)), "TIFF"), as_rgb(GRAY), True)
    for name, odd in (("large", unit * 1e4), ("negative", unit - 0.5), ("nan", np.where(unit > 0.5, unit, np.nan))):
        yield File(f"TIFF-float-{name}.tif", saved(Image.fromarray(odd.astype(np.float32)), "TIFF"), None, True)
    signed = Image.fromarray(values.astype(np.int32) - 30000)
    yield File("TIFF-int32.tif", saved(signed, "TIFF"), None, True)


def framed() -> Iterator[File]:
    """Yields files with several frames, the first of which is the image."""
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        content = saved(frames[0], form, save_all=True, append_images=frames[1:], **lossless(form))
        yield File(f"{form}-frames.{form.lower()}", content, as_rgb(GRAY), True)
    content = saved(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    yield File("MPO-frames.jpg", content, decoded(content), False)


def damaged() -> Iterator[File]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF"):
        content = saved(noise, form, **lossless(form))
        for share in (0.1, 0.5, 0.8):
            yield File(f"{form}-cut-{share:g}.{form.lower()}", content[: int(len(content) * share)], None, True)
        yield File(f"{form}-empty.{form.lower()}", b"", None, True)
        yield File(f"{form}-text.{form.lower()}", b"<html>404 Not Found</html>", None, True)
        yield File(f"{form}-zeros.{form.lower()}", bytes(len(content)), None, True)
    png = saved(Image.fromarray(RGB), "PNG")
    broken = bytearray(png)
    broken[len(png) // 2] ^= 0xFF
    yield File("PNG-bit.png", bytes(broken), None, True)
    yield File("heic.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), None, True)
    yield File("huge.png", png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:], None, True)


def all_files() -> list[File]:
    """Returns the whole table: at least 150 files with different names."""
    return [*plain(), *oriented(), *transparent(), *deep(), *framed(), *damaged()]
