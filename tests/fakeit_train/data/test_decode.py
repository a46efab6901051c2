"""OpenCV's decoder against Pillow's, and what is refused."""

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
PICTURES = {
    "4:2:0": encoded(PHOTOGRAPH, quality=90),
    "4:4:4": encoded(PHOTOGRAPH, quality=75, subsampling=0),
    "4:2:2": encoded(PHOTOGRAPH.crop((0, 0, 333, 221)), quality=60, subsampling=1),
    "progressive": encoded(PHOTOGRAPH, quality=90, progressive=True),
    "grey": encoded(PHOTOGRAPH.convert("L")),
    "four inks": encoded(PHOTOGRAPH.convert("CMYK")),
    "turned by its header": encoded(PHOTOGRAPH, exif=ORIENTED),
    "png": encoded(PHOTOGRAPH.crop((0, 0, 99, 50)), "PNG"),
    "webp": encoded(PHOTOGRAPH.crop((0, 0, 99, 50)), "WEBP"),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("view", [bytes, memoryview])
def test_decode__gives_pillows_pixels(kind: str, view: Any) -> None:
    found = decode("key", view(PICTURES[kind]))
    assert found.flags.writeable and (found == decode_image(PICTURES[kind])).all()


@pytest.mark.parametrize("harm", ["cut", "cut but ended", "empty", "text"])
def test_decode__what_is_no_picture_is_told(harm: str) -> None:
    content = PICTURES["4:2:0"]
    harmed = {
        "cut": content[:9000],
        "cut but ended": content[:200] + b"\xff\xd9",
        "empty": b"",
        "text": b"hello\xff\xd9",
    }
    with pytest.raises(UserError, match="sample 'n01_00000007' has a broken image"):
        decode("n01_00000007", harmed[harm])


def test_decode__too_many_pixels_are_refused() -> None:
    content = bytearray(PICTURES["grey"])
    where = content.index(b"\xff\xc0") + 5
    content[where : where + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(UserError, match="pixels"):
        decode("key", bytes(content))


def test_decode__pictures_of_other_kinds_are_writable() -> None:
    assert decode("key", PICTURES["png"]).dtype == np.uint8
