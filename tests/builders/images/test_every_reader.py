"""Everything that reads images is tested on one table of files (`file_table.py`).

What `make` puts into a clone, and what stock `load_dataset`, training, evaluation and the gallery see of it,
must be the pixels of the file.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.classes.class_options import ClassOptions
from builders.cli.main import main
from builders.errors import UserError
from builders.format.open_clone import open_clone
from builders.image_sets.open_image_set import open_image_set
from builders.images.source import read_source
from builders.real_images import RealImages
from builders.viewing.gallery_sources import open_source
from fakeit_train.data.decode import decode
from tests import in_process
from tests.builders.images.file_table import SIDE, File, all_files, decoded, saved

FILES = all_files()
READABLE = [file for file in FILES if file.expected is not None]
BROKEN = [file for file in FILES if file.expected is None]


def write(folder: Path, files: list[File]) -> Path:
    (folder / "class").mkdir(parents=True)
    for file in files:
        (folder / "class" / file.name).write_bytes(file.content)
    return folder


def test_every_reader__the_table_is_large_enough() -> None:
    assert len(FILES) >= 150 and len({Path(file.name).stem for file in FILES}) == len(FILES) and len(READABLE) > 80


def check(found: "np.ndarray", file: File, reader: str) -> None:  # type: ignore[type-arg]
    assert file.expected is not None and found.shape == (SIDE, SIDE, 3), f"{reader}: {file.name}"
    difference = np.abs(found.astype(int) - file.expected).max()
    assert difference <= (0 if file.is_lossless else 2), f"{reader}: {file.name} differs by {difference}"


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_every_reader__shows_the_pixels_of_the_file(image_format: str, tmp_path: Path) -> None:
    import datasets

    source, out = write(tmp_path / "source", READABLE), tmp_path / "clone"
    options = ("--source", source, "--image-format", image_format, "--shard-size", 50)
    made = in_process.call(main, "make", "real_images/train", out, *options)
    assert made.returncode == 0 and "images were turned upright" in made.stdout
    assert in_process.call(main, "verify", out, "--deep").returncode == 0
    clone, files = open_clone(out), {file.name: file for file in READABLE}
    names = [name.rpartition("/")[2] for name in read_source(str(source)).folders.images["class"]]
    stock = datasets.load_dataset(str(out), split="train")
    evaluated, shown = open_image_set(str(source)), open_source(str(source), "real")
    gallery = {image.key: image for image in shown.images("class", len(names))}
    assert len(clone) == len(stock) == len(evaluated) == len(names) == len(READABLE)
    for number, name in enumerate(names):
        file, index = files[name], clone.find(f"class_{number:08d}")
        sample = clone[index]
        # The clone may hold the image encoded again; then the reference is Pillow's encoding of the same pixels.
        if image_format == "jpg" and sample.image != file.content:
            assert file.expected is not None
            again = saved(Image.fromarray(file.expected), "JPEG", quality=95, subsampling="4:4:4")
            file = File(file.name, file.content, decoded(again), file.is_lossless)
        row = stock[index]
        assert row["json"]["width"] == row["json"]["height"] == SIDE
        pixels = np.asarray(row[image_format].convert("RGB"))
        check(pixels, file, "load_dataset")
        for reader, found in (("train", decode(sample.key, sample.image)), ("clone", clone.decoded(index)[0])):
            assert (found == pixels).all(), f"{reader} disagrees with load_dataset on {name}"
        check(evaluated.decoded(number)[0], files[name], "evaluation")
    for name, file in files.items():
        if (tile := gallery.get(Path(name).stem)) is not None:
            image = Image.open(io.BytesIO(tile.content))
            assert image.format in ("PNG", "JPEG", "WEBP") and image.getexif().get(0x0112, 1) not in range(2, 9)
            check(np.asarray(image.convert("RGB")), file, "gallery")


def test_every_reader__names_every_broken_file_at_once(tmp_path: Path) -> None:
    source, out = write(tmp_path / "source", [*READABLE[:20], *BROKEN]), tmp_path / "clone"
    made = in_process.call(main, "make", "real_images/train", out, "--source", source)
    assert made.returncode == 2 and "Traceback" not in made.stderr and not out.exists()
    assert f"{len(BROKEN)} of {20 + len(BROKEN)} images" in made.stderr
    for file in BROKEN:
        assert f"{file.name}' (" in made.stderr and f"{file.name}' ()" not in made.stderr
    made = in_process.call(main, "make", "real_images/train", out, "--source", source, "--skip-broken")
    assert made.returncode == 2 and "more than the 1.00% of --skip-broken" in made.stderr
    made = in_process.call(main, "make", "real_images/train", out, "--source", source, "--skip-broken", "0.9")
    assert made.returncode == 0 and f"{len(BROKEN)} files cannot be read and are left out" in made.stderr
    assert (
        len(open_clone(out)) == 20
        and f"{len(BROKEN)} files cannot be read and are left out" in (out / "README.md").read_text()
    )
    assert in_process.call(main, "verify", out, "--deep").returncode == 0


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.name)
def test_every_reader__rejects_a_broken_file_with_a_message(file: File, tmp_path: Path) -> None:
    found = open_image_set(str(write(tmp_path, [file])))
    with pytest.raises(UserError, match=r"cannot be read \(.+\)"):
        found.decoded(0)


def test_every_reader__leaves_out_hidden_and_other_files(tmp_path: Path) -> None:
    source = write(tmp_path / "source", READABLE[:3])
    for name in ("._0.jpg", ".DS_Store", "Thumbs.db", "notes.txt", "label.xml"):
        (source / "class" / name).write_bytes(b"x")
    (source / "class" / "more" / "deeper").mkdir(parents=True)
    (source / "class" / "more" / "deeper" / "A.JPG").write_bytes(
        next(f for f in READABLE if f.name == "JPEG-RGB-95.jpg").content
    )
    (source / "__MACOSX").mkdir()
    odd = b"caf\xe9.png"
    (source / "class").joinpath(odd.decode("utf-8", "surrogateescape")).write_bytes(READABLE[0].content)
    assert len(open_image_set(str(source))) == 5
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    assert [entry.base_count for entry in recipe.classes] == [5]
    made = in_process.call(main, "make", "real_images/train", tmp_path / "out", "--source", source)
    assert made.returncode == 0 and "2 files in" in made.stderr and "1 .txt, 1 .xml" in made.stderr
    assert len(open_clone(tmp_path / "out")) == 5
