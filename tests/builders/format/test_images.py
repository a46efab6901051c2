import io

import numpy as np
import pytest
from PIL import Image

from builders.format.errors import UserError
from builders.format.images import check_format, decode_image, encode_image, read_image_header

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_images__header_tells_format_and_size(image_format: str) -> None:
    header = read_image_header(encode_image(PIXELS, image_format, 95))
    assert (header.image_format, header.width, header.height, header.mode) == (image_format, 20, 12, "RGB")


def test_images__png_loses_nothing() -> None:
    assert (decode_image(encode_image(PIXELS, "png", 95)) == PIXELS).all()


def test_images__cut_pictures_do_not_decode() -> None:
    with pytest.raises(ValueError, match="picture"):
        decode_image(encode_image(PIXELS, "png", 95)[:-40])


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff"])
def test_images__what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        read_image_header(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images__huge_pictures_are_refused_undecoded() -> None:
    buffer = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="pixels"):
        decode_image(buffer.getvalue())


def test_images__unknown_formats_are_told() -> None:
    with pytest.raises(UserError, match="'gif'; choose from jpg, png, webp"):
        check_format("gif")
