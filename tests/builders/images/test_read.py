import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from builders.errors import UserError
from builders.images.encode import check_format, encode_image
from builders.images.read import AS_PUBLISHED, check_color, decode_image, read_image, read_image_header

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
GRAY = PIXELS[..., 0]


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(form: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(PIXELS), form, exif=exif, **options)


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_read__the_header_has_format_and_size(image_format: str) -> None:
    header = read_image_header(encode_image(PIXELS, image_format, 95))
    assert (header.image_format, header.width, header.height, header.mode) == (image_format, 20, 12, "RGB")
    assert header.is_plain and not header.is_turned


def test_read__png_is_lossless() -> None:
    assert (decode_image(encode_image(PIXELS, "png", 95)) == PIXELS).all()


def test_read__truncated_images_do_not_decode() -> None:
    with pytest.raises(ValueError, match="PNG image does not decode"):
        decode_image(encode_image(PIXELS, "png", 95)[:-40])


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff"])
def test_read__files_that_are_not_images_are_rejected(content: bytes) -> None:
    with pytest.raises(ValueError, match="image"):
        read_image_header(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_read__huge_images_are_rejected_before_decoding() -> None:
    with pytest.raises(ValueError, match="pixels"):
        decode_image(saved(Image.new("1", (12_000, 12_000)), "PNG"))


def test_read__unknown_formats_and_colors_are_reported() -> None:
    with pytest.raises(UserError, match="'gif'; choose from jpg, png, webp"):
        check_format("gif")
    with pytest.raises(UserError, match="unknown color 'wite'"):
        check_color("wite")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_read__images_are_upright_as_in_pillow_or_as_published(form: str, orientation: int) -> None:
    content = turned(form, orientation, **({"lossless": True} if form == "WEBP" else {}))
    with Image.open(io.BytesIO(content)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    with Image.open(io.BytesIO(content)) as image:
        published = np.asarray(image.convert("RGB"))
    assert (read_image(content).pixels == upright).all()
    assert (read_image(content, AS_PUBLISHED).pixels == published).all()
    assert form == "TIFF" or (published == PIXELS).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_read__sixteen_bits_are_divided_by_257(form: str) -> None:
    values = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    found = read_image(saved(Image.fromarray(values), form)).pixels
    assert (found == np.rint(values / 257)[..., None]).all()


@pytest.mark.parametrize("largest", [1, 255])
def test_read__floats_are_in_one_of_two_ranges(largest: int) -> None:
    values = (GRAY / 255 * largest).astype(np.float32)
    assert np.abs(read_image(saved(Image.fromarray(values), "TIFF")).pixels[..., 0].astype(int) - GRAY).max() == 0
    with pytest.raises(ValueError, match=r"values from 0\.0 to 512"):
        read_image(saved(Image.fromarray(values / values.max() * 512), "TIFF"))
    with pytest.raises(ValueError, match="values from nan"):
        read_image(saved(Image.fromarray(np.where(values > 0, values, np.float32(np.nan))), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_read__transparent_pixels_show_the_background(mode: str) -> None:
    pixels = np.dstack([PIXELS, np.where(GRAY > 127, 255, 0)]).astype(np.uint8)
    content = saved(Image.fromarray(pixels).convert(mode), "PNG")
    hidden = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[..., 3] == 0
    assert hidden.any()
    assert (read_image(content).pixels[hidden] == 255).all()
    assert (read_image(content, background="#102030").pixels[hidden] == (16, 32, 48)).all()
    assert not read_image_header(content).is_plain


def test_read__a_truncated_jpeg_is_rejected_or_read_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode_image(np.repeat(np.repeat(PIXELS, 8, 0), 8, 1), "jpg", 95)
    with pytest.raises(ValueError, match="JPEG image does not decode"):
        read_image(content[: len(content) // 2])
    found = read_image(content[: len(content) // 2], AS_PUBLISHED)
    assert found.is_cut and not read_image(content, AS_PUBLISHED).is_cut
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(io.BytesIO(content[: len(content) // 2])) as image:
        assert (found.pixels == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_read__the_first_of_several_frames_is_read(form: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "MPO" else {}
    content = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    first = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert (read_image(content).pixels == first).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"<html><body>404</body></html>", "a web page or SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC.*pillow-heif"),
        (b"%PDF-1.7", "not an image in a supported format"),
    ],
)
def test_read__the_message_says_what_a_file_is(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_image(content)
