"""Encodes images at fixed settings: the same pixels and versions give the same bytes."""

import io
from typing import Any

from PIL import Image

from builders.errors import UserError
from builders.images.read import CLONE_FORMATS, FORMATS, WHITE, Pixels, read_image, read_image_header

TURNED, CONVERTED = "turned", "converted"
CHANGES = {TURNED: "turned upright, as their EXIF says,", CONVERTED: "of another format, mode or number of frames"}
"""What `stored` may do to an image that it encodes again, and how a message says that of several."""


def check_format(image_format: str) -> str:
    """The format itself.

    Raises:
        UserError: it is none of a clone's.
    """
    if image_format not in CLONE_FORMATS:
        raise UserError(f"unknown image format '{image_format}'; choose from {', '.join(CLONE_FORMATS)}")
    return image_format


def encode_image(pixels: Pixels, image_format: str, quality: int, *, subsampling: str = "4:2:0") -> bytes:
    """RGB pixels (height, width, 3) as a file; `quality` (1 to 100) is for jpg and webp, `subsampling` for jpg."""
    options: dict[str, dict[str, Any]] = {
        "jpg": {"quality": quality, "subsampling": subsampling},
        "webp": {"quality": quality},
        "png": {"compress_level": 6},
    }
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, CLONE_FORMATS[image_format], **options[image_format])
    return buffer.getvalue()


def stored(content: bytes, image_format: str, quality: int, background: str = WHITE) -> tuple[bytes, str]:
    """The file that a clone holds of an image file, and what was done to it ("" for a file that is kept byte for byte).

    A file is kept if it has the clone's format and looks the same to every reader. A JPEG that is encoded again has no chroma
    subsampling, to lose little.

    Raises:
        ValueError: it cannot be read.
    """
    header = read_image_header(content, FORMATS)
    if header.image_format == image_format and header.is_plain:
        return content, ""
    pixels = read_image(content, background=background).pixels
    encoded = encode_image(pixels, image_format, quality, subsampling="4:4:4")
    return encoded, TURNED if header.is_turned else CONVERTED


def as_shown(content: bytes) -> tuple[bytes, str]:
    """An image file that every browser shows as it is read here, and its extension.

    Raises:
        ValueError: it cannot be read.
    """
    header = read_image_header(content, FORMATS)
    if header.image_format and header.is_plain:
        return content, header.image_format
    return encode_image(read_image(content).pixels, "png", 100), "png"
