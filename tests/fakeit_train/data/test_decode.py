"""OpenCV's decoder compared with Pillow's, and files that decoding rejects."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.errors import UserError
from builders.images.read import decode_image
from fakeit_train.data.decode import decode
from tests.fakeit_train.crops.test_crops_distribution import photographs


def encoded(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


PHOTOGRAPH = Image.fromarray(photographs()[0])
ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6
IMAGES = {
    "4:2:0": encoded(PHOTOGRAPH, quality=90),
    "4:4:4": encoded(PHOTOGRAPH, quality=75, subsampling=0),
    "4:2:2": encoded(PHOTOGRAPH.crop((0, 0, 333, 221)), quality=60, subsampling=1),
    "progressive": encoded(PHOTOGRAPH, quality=90, progressive=True),
    "gray": encoded(PHOTOGRAPH.convert("L")),
    "CMYK": encoded(PHOTOGRAPH.convert("CMYK")),
    "rotated by EXIF": encoded(PHOTOGRAPH, exif=ORIENTED),
    "png": encoded(PHOTOGRAPH.crop((0, 0, 99, 50)), "PNG"),
    "webp": encoded(PHOTOGRAPH.crop((0, 0, 99, 50)), "WEBP"),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("view", [bytes, memoryview])
def test_decode__equals_pillow(kind: str, view: Any) -> None:
    found = decode("key", view(IMAGES[kind]))
    assert found.flags.writeable and (found == decode_image(IMAGES[kind])).all()


@pytest.mark.parametrize("harm", ["cut", "cut but ended", "empty", "text"])
def test_decode__a_broken_image_is_reported(harm: str) -> None:
    content = IMAGES["4:2:0"]
    harmed = {
        "cut": content[:9000],
        "cut but ended": content[:200] + b"\xff\xd9",
        "empty": b"",
        "text": b"hello\xff\xd9",
    }
    with pytest.raises(UserError, match="sample 'n01_00000007' has a broken image"):
        decode("n01_00000007", harmed[harm])


def test_decode__too_many_pixels_are_refused() -> None:
    content = bytearray(IMAGES["gray"])
    where = content.index(b"\xff\xc0") + 5
    content[where : where + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(UserError, match="pixels"):
        decode("key", bytes(content))


def test_decode__a_png_becomes_uint8() -> None:
    assert decode("key", IMAGES["png"]).dtype == np.uint8
