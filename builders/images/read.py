"""Reads images: the one rule for which pixels a file has, the same for every command. There are two policies.

AS_SEEN         what a viewer shows: upright (EXIF), transparent pixels over a color, 16 bits and floats scaled to
                8 bits, the first of several frames. A damaged file is rejected. For image folders and clones.
AS_PUBLISHED    what the authors of benchmarks read: Pillow's `convert("RGB")`, not turned. A file that is cut short
                is read as far as it goes. For datasets whose numbers are compared with published ones.
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
"""Formats of a clone's images: the extension of the member, and Pillow's name."""
FORMATS = (*CLONE_FORMATS.values(), "MPO", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000")
"""Pillow's names of the formats that are read; a file's extension does not matter."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
MAX_PIXELS = 64 * 1024 * 1024
"""Upper limit for the number of pixels; larger images are rejected before they are decoded."""
ORIENTATION = 0x0112
"""EXIF tag of the orientation, in which 1 is upright."""


@dataclass(frozen=True)
class ReadImage:
    pixels: Pixels
    is_cut: bool = False
    """Whether the file ended early and was read as far as it goes (with `AS_PUBLISHED` only)."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """The properties of an image file that are known before it is decoded."""

    image_format: str
    """Extension of the member (jpg, png, webp); "" for a format that clones do not hold."""
    width: int
    """Width of the stored image in pixels."""
    height: int
    mode: str
    """Pillow's mode, such as "RGB"."""
    is_turned: bool
    """Whether the EXIF data says that the image is stored on its side or mirrored."""
    is_plain: bool
    """Whether every reader shows the stored 8-bit gray or RGB pixels: upright, opaque, a single frame."""


def check_color(color: str) -> str:
    """Returns the color, a name or #rrggbb, after checking it.

    Raises:
        UserError: Pillow does not know the color.
    """
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise UserError(f"unknown color '{color}'; give a name such as white, or #rrggbb") from None
    return color


def read_image(content: Buffer, policy: str = AS_SEEN, background: str = WHITE) -> ReadImage:
    """Reads the pixels of an image file. `background` is the color behind transparent pixels (with `AS_SEEN` only).

    Raises:
        ValueError: the file cannot be read; the message says why, with the format.
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
    """Returns the pixels of a clone's sample, read as `AS_SEEN`.

    Raises:
        UserError: the image cannot be decoded.
    """
    try:
        return decode_image(content)
    except ValueError as error:
        raise UserError(f"sample '{key}' has a broken image ({error}); run 'fakeit-build verify --deep'") from None


def decode_image(content: Buffer) -> Pixels:
    """Returns the pixels of a clone's image (jpg, png or webp), read as `AS_SEEN`.

    Raises:
        ValueError: the image cannot be decoded.
    """
    _check_sums(content)
    with _opened(content, tuple(CLONE_FORMATS.values())) as image:
        return np.asarray(_as_seen(image, WHITE))


def read_image_header(content: Buffer, formats: tuple[str, ...] = tuple(CLONE_FORMATS.values())) -> ImageHeader:
    """Reads the header of an image file, without decoding the image.

    Raises:
        ValueError: the image has none of the `formats`, or is larger than `MAX_PIXELS`.
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
    """Opens an image. Any failure, also one within the `with` block, is raised as a ValueError."""
    try:
        image = Image.open(io.BytesIO(content), formats=[name for name in formats if name in _known_formats()])
    except UnidentifiedImageError:
        # The exception's own text names an object in memory.
        raise ValueError(_what_it_is(bytes(content[:64]), formats)) from None
    except Exception as error:
        # Hostile files make Pillow raise exceptions of many kinds.
        raise ValueError(f"image does not decode: {first_line(error)}") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
        try:
            yield image
        except Exception as error:
            raise ValueError(f"{image.format} image does not decode: {first_line(error)}") from None


def _check_sums(content: Buffer) -> None:
    """Rejects a PNG with wrong checksums, which Pillow would decode."""
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
    """Returns the EXIF orientation, 1 to 8. Any other value counts as 1, which leaves the image as it is."""
    found = image.getexif().get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def _scaled(values: NDArray[np.generic], largest: int) -> Pixels:
    """Scales values in [0, largest] to 8 bits; 16-bit values are divided by 257."""
    low, high = values.min(), values.max()
    # The comparison is also false if some values are NaN.
    if not 0 <= low <= high <= largest:
        raise ValueError(f"values from {low} to {high} are neither 8 nor 16 bits, nor in [0, 1] or [0, 255]")
    return np.rint(values.astype(np.float64) * (255 / largest)).astype(np.uint8)


def _from_array(gray: Pixels) -> Image.Image:
    return Image.fromarray(gray).convert("RGB")


@contextmanager
def _cut_files_are_read() -> Iterator[None]:
    """Makes Pillow read files that are cut short, with a switch that all threads of the process share.

    Published datasets are read in processes with a single thread.
    """
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@cache
def _known_formats() -> frozenset[str]:
    """Returns the formats that this Pillow opens, with HEIF if pillow-heif is installed."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return frozenset(Image.OPEN)


def _what_it_is(start: bytes, formats: tuple[str, ...]) -> str:
    """Describes a file that has none of the formats."""
    if not start:
        return "not an image, the file is empty"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "HEIC, which can be read if pillow-heif is installed"
    if start[4:8] == b"ftyp" and start[8:11] == b"avi":
        return "AVIF, which the installed Pillow cannot read"
    if start.lstrip()[:1] == b"<":
        return "a web page or SVG, not an image of pixels"
    if set(formats) == set(CLONE_FORMATS.values()):
        return "not a jpg, png or webp image"
    return f"not an image in a supported format ({', '.join(name.lower() for name in formats)})"
