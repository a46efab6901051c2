"""Encodes images with fixed settings: the same pixels and library versions give the same bytes."""

import io
from typing import Any

from PIL import Image

from builders.errors import UserError
from builders.images.read import CLONE_FORMATS, FORMATS, WHITE, Pixels, read_image, read_image_header

TURNED, CONVERTED = "turned", "converted"
CHANGES = {TURNED: "turned upright, as their EXIF says,", CONVERTED: "of another format, mode or number of frames"}
"""Changes that `stored` may make to an image that it encodes again, and how a message describes several such images."""


def check_format(image_format: str) -> str:
    """Returns the image format after checking it.

    Raises:
        UserError: a clone cannot have this format.
    """
    if image_format not in CLONE_FORMATS:
        raise UserError(f"unknown image format '{image_format}'; choose from {', '.join(CLONE_FORMATS)}")
    return image_format


def encode_image(pixels: Pixels, image_format: str, quality: int, *, subsampling: str = "4:2:0") -> bytes:
    """Encodes RGB pixels (height, width, 3) as an image file.

    `quality` (1 to 100) is for jpg and webp, `subsampling` for jpg.
    """
    options: dict[str, dict[str, Any]] = {
        "jpg": {"quality": quality, "subsampling": subsampling},
        "webp": {"quality": quality},
        "png": {"compress_level": 6},
    }
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, CLONE_FORMATS[image_format], **options[image_format])
    return buffer.getvalue()


def stored(content: bytes, image_format: str, quality: int, background: str = WHITE) -> tuple[bytes, str]:
    """Returns the file that a clone holds for an image file, and the change made to it ("" if no byte was changed).

    A file is kept if it has the clone's format and looks the same to every reader. A JPEG that is encoded again has no
    chroma subsampling, so that it loses little.

    Raises:
        ValueError: the file cannot be read.
    """
    header = read_image_header(content, FORMATS)
    if header.image_format == image_format and header.is_plain:
        return content, ""
    pixels = read_image(content, background=background).pixels
    encoded = encode_image(pixels, image_format, quality, subsampling="4:4:4")
    return encoded, TURNED if header.is_turned else CONVERTED


def as_shown(content: bytes) -> tuple[bytes, str]:
    """Returns an image file that every browser shows with the same pixels as `read_image`, and the file's extension.

    Raises:
        ValueError: the file cannot be read.
    """
    header = read_image_header(content, FORMATS)
    if header.image_format and header.is_plain:
        return content, header.image_format
    return encode_image(read_image(content).pixels, "png", 100), "png"
