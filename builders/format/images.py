"""Pictures as bytes: encoding at fixed settings, and decoding with the bounds that hostile input needs."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from builders.format.errors import UserError

Buffer = bytes | memoryview

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
"""Member extension to Pillow's name."""

FOREIGN_FORMATS = (*FORMATS.values(), "GIF", "BMP", "TIFF", "PPM", "MPO")
"""Pillow's names of what published data sets hold, whatever their files' extensions say."""

MAX_PIXELS = 64 * 1024 * 1024
"""Larger pictures are refused before they are decoded."""


def check_format(image_format: str) -> str:
    """The format itself.

    Raises:
        UserError: it is none of `FORMATS`.
    """
    if image_format not in FORMATS:
        raise UserError(f"unknown image format '{image_format}'; choose from {', '.join(FORMATS)}")
    return image_format


def encode_image(pixels: NDArray[np.uint8], image_format: str, quality: int) -> bytes:
    """RGB pixels (height, width, 3) as a file; `quality` (1 to 100) is for jpg and webp."""
    buffer = io.BytesIO()
    options = {"quality": quality} if image_format in ("jpg", "webp") else {"compress_level": 6}
    Image.fromarray(pixels).save(buffer, FORMATS[image_format], **options)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    image_format: str
    width: int
    height: int
    mode: str


def read_image_header(content: Buffer) -> ImageHeader:
    """What a picture says it is, nothing decoded.

    Raises:
        ValueError: it is none of `FORMATS`, or larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=list(FORMATS.values())) as image:
            extension = next(ext for ext, name in FORMATS.items() if name == image.format)
            header = ImageHeader(image_format=extension, width=image.width, height=image.height, mode=image.mode)
    except UnidentifiedImageError:  # whose words name an object in memory
        raise ValueError("not a jpg, png or webp picture") from None
    except Exception as error:  # Pillow has no one kind for what hostile files make it raise
        raise ValueError(f"not a jpg, png or webp picture ({error})") from None
    if header.width * header.height > MAX_PIXELS:
        raise ValueError(f"{header.width}x{header.height} pixels are more than {MAX_PIXELS}")
    return header


def decode_sample(key: str, content: Buffer) -> NDArray[np.uint8]:
    """`decode_image` for a sample of a clone.

    Raises:
        UserError: it cannot be decoded.
    """
    try:
        return decode_image(content)
    except ValueError as error:
        raise UserError(f"sample '{key}' has a broken picture ({error}); run 'fakeit-build verify --deep'") from None


def decode_image(content: Buffer) -> NDArray[np.uint8]:
    """A picture as RGB pixels (height, width, 3).

    Raises:
        ValueError: it cannot be decoded.
    """
    read_image_header(content)
    return _decode(content, tuple(FORMATS.values()))


def decode_foreign_image(content: Buffer) -> NDArray[np.uint8]:
    """The same of a picture that may be any of `FOREIGN_FORMATS`."""
    return _decode(content, FOREIGN_FORMATS)


def _decode(content: Buffer, formats: tuple[str, ...]) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=list(formats)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise ValueError(f"picture does not decode ({error})") from None
