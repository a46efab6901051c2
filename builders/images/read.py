"""Reads images: the one rule, for every command, of which pixels a file has.

AS_SEEN         what a viewer shows: upright (EXIF), transparent pixels over a color, 16 bits and floats scaled to
                8 bits, the first frame of several; a damaged file is refused. For image folders and clones.
AS_PUBLISHED    what the authors of benchmarks read: Pillow's `convert("RGB")`, not turned, and of a file that is cut
                as much as there is. For data sets whose numbers are compared with published ones.
"""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageFile, ImageOps, UnidentifiedImageError

from builders.errors import UserError, first_line

Buffer = bytes | memoryview
Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""

AS_SEEN, AS_PUBLISHED = "as_seen", "as_published"
WHITE = "white"
CLONE_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""What a clone's images may be: the member's extension, and Pillow's name."""
FORMATS = (*CLONE_FORMATS.values(), "MPO", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000")
"""Pillow's names of what is read; a file's extension does not matter."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
MAX_PIXELS = 64 * 1024 * 1024
"""Larger images are refused before they are decoded."""
ORIENTATION = 0x0112
"""EXIF tag; 1 is upright."""


@dataclass(frozen=True)
class ReadImage:
    pixels: Pixels
    is_cut: bool = False
    """Whether the file ended early and was read as far as it goes (`AS_PUBLISHED` alone)."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What a file says before anything is decoded."""

    image_format: str
    """Member extension (jpg, png, webp); "" for a format that clones do not hold."""
    width: int
    """Pixels, as they are stored."""
    height: int
    mode: str
    """Pillow's."""
    is_turned: bool
    """Whether its EXIF says that it is stored on its side or mirrored."""
    is_plain: bool
    """Whether every reader shows the stored 8-bit gray or RGB pixels: upright, opaque, a single frame."""


def check_color(color: str) -> str:
    """The color itself, a name or #rrggbb.

    Raises:
        UserError: Pillow does not know it.
    """
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise UserError(f"unknown color '{color}'; give a name such as white, or #rrggbb") from None
    return color


def read_image(content: Buffer, policy: str = AS_SEEN, background: str = WHITE) -> ReadImage:
    """An image file's pixels; `background` is the color behind transparent ones (`AS_SEEN` alone).

    Raises:
        ValueError: it cannot be read, with format and reason.
    """
    if policy == AS_SEEN:
        _check_sums(content)
        with _opened(content, FORMATS) as image:
            return ReadImage(np.asarray(_as_seen(image, background)))
    try:
        with _opened(content, FORMATS) as image:
            return ReadImage(np.asarray(image.convert("RGB")))
    except ValueError:
        with _cut_files_are_read(), _opened(content, FORMATS) as image:
            return ReadImage(np.asarray(image.convert("RGB")), is_cut=True)


def decode_sample(key: str, content: Buffer) -> Pixels:
    """The pixels of a clone's sample, as they are seen.

    Raises:
        UserError: it cannot be decoded.
    """
    try:
        return decode_image(content)
    except ValueError as error:
        raise UserError(f"sample '{key}' has a broken image ({error}); run 'fakeit-build verify --deep'") from None


def decode_image(content: Buffer) -> Pixels:
    """The pixels of a clone's image, jpg, png or webp.

    Raises:
        ValueError: it cannot be decoded.
    """
    _check_sums(content)
    with _opened(content, tuple(CLONE_FORMATS.values())) as image:
        return np.asarray(_as_seen(image, WHITE))


def read_image_header(content: Buffer, formats: tuple[str, ...] = tuple(CLONE_FORMATS.values())) -> ImageHeader:
    """What an image says it is; nothing is decoded.

    Raises:
        ValueError: it is none of `formats`, or larger than `MAX_PIXELS`.
    """
    with _opened(content, formats) as image:
        extension = next((ext for ext, name in CLONE_FORMATS.items() if name == image.format), "")
        is_turned = _orientation(image) != 1
        is_opaque = image.mode in ("RGB", "L") and not image.has_transparency_data
        return ImageHeader(
            image_format=extension,
            width=image.width,
            height=image.height,
            mode=image.mode,
            is_turned=is_turned,
            is_plain=is_opaque and not is_turned and not getattr(image, "is_animated", False),
        )


@contextmanager
def _opened(content: Buffer, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """An opened image, whose failures are all told as ValueError."""
    try:
        image = Image.open(io.BytesIO(content), formats=[name for name in formats if name in _known_formats()])
    except UnidentifiedImageError:  # whose words name an object in memory
        raise ValueError(_what_it_is(bytes(content[:64]), formats)) from None
    except Exception as error:  # Pillow has no one kind for what hostile files make it raise
        raise ValueError(f"image does not decode: {first_line(error)}") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
        try:
            yield image
        except Exception as error:
            raise ValueError(f"{image.format} image does not decode: {first_line(error)}") from None


def _check_sums(content: Buffer) -> None:
    """Refuses a PNG whose checksums are wrong, which Pillow decodes."""
    if content[:4] == b"\x89PNG":
        with _opened(content, ("PNG",)) as image:
            image.verify()


def _as_seen(image: Image.Image, background: str) -> Image.Image:
    is_sixteen_bits = image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if is_sixteen_bits:
        return _from_array(_scaled(np.asarray(image), 65535))
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        return _from_array(_scaled(values, 1 if values.max() <= 1 else 255))
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, background), shown).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """1 to 8, EXIF's; what is none of them leaves an image as it is."""
    found = image.getexif().get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def _scaled(values: NDArray[np.generic], largest: int) -> Pixels:
    """Values in [0, largest] as 8 bits; 65535 / 257 is 255."""
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= largest:  # also where some are NaN
        raise ValueError(f"values from {low} to {high} are neither 8 nor 16 bits, nor in [0, 1] or [0, 255]")
    return np.rint(values.astype(np.float64) * (255 / largest)).astype(np.uint8)


def _from_array(gray: Pixels) -> Image.Image:
    return Image.fromarray(gray).convert("RGB")


@contextmanager
def _cut_files_are_read() -> Iterator[None]:
    """Sets Pillow's own switch, which is one for all threads: published sets are read in processes of one thread."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@cache
def _known_formats() -> frozenset[str]:
    """What this Pillow opens; HEIF where pillow-heif is installed."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return frozenset(Image.OPEN)


def _what_it_is(start: bytes, formats: tuple[str, ...]) -> str:
    """Says of a file that no format claims what it seems to be."""
    if not start:
        return "no image, the file is empty"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "HEIC, which is read where pillow-heif is installed"
    if start[4:8] == b"ftyp" and start[8:11] == b"avi":
        return "AVIF, which this Pillow does not read"
    if start.lstrip()[:1] == b"<":
        return "a web page or SVG, and no image in pixels"
    if set(formats) == set(CLONE_FORMATS.values()):
        return "not a jpg, png or webp image"
    return f"no image in a format that is read ({', '.join(name.lower() for name in formats)})"
