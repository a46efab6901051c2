import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from builders.classes.class_options import ClassOptions
from builders.engines import folder
from builders.engines.base import GeneratedImage, pin_model
from builders.errors import UserError
from builders.images.encode import encode_image
from builders.planning.plan import Plan
from builders.real_images import RealImages
from builders.recipes.execution import Execution

PIXELS = np.full((10, 14, 3), 200, np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "cat").mkdir()
    (tmp_path / "ant").mkdir()
    (tmp_path / "cat" / "b.JPEG").write_bytes(encode_image(PIXELS, "jpg", 80))
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "cat" / "a.jpg")
    (tmp_path / "ant" / "x.png").write_bytes(encode_image(PIXELS, "png", 80))
    (tmp_path / "ant" / "notes.txt").touch()
    return tmp_path


def test_folder__classes_are_the_folders_and_counts_their_images(source: Path) -> None:
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    assert [(entry.wnid, entry.base_count) for entry in recipe.classes] == [("ant", 1), ("cat", 2)]


def test_folder__files_in_the_right_format_are_kept_and_others_encoded(source: Path) -> None:
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    samples = Plan(recipe, 2).shard_samples(0)
    made = {s.key: p for s, p in zip(samples, folder.load(recipe, Execution())(samples), strict=True)}
    assert made["cat_00000001"] == GeneratedImage((source / "cat" / "b.JPEG").read_bytes())
    for key in ("cat_00000000", "ant_00000000"):
        content = made[key].image
        assert isinstance(content, bytes) and made[key].change == "converted"
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.size) == ("JPEG", (14, 10))
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
            assert np.abs(np.asarray(image).astype(int) - 200).max() <= 2


def test_folder__a_change_that_keeps_size_and_time_is_noticed(source: Path) -> None:
    path = source / "cat" / "b.JPEG"
    before, status = RealImages.recipe("train", ClassOptions(source=str(source))), path.stat()
    path.write_bytes(encode_image(PIXELS - 1, "jpg", 80).ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    [made] = [p for p in folder.load(before, Execution())(Plan(before, 2).shard_samples(0)) if p.problem]
    assert "b.JPEG' cannot be read (it changed while the clone was made)" in made.problem
    with pytest.raises(UserError, match="but the recipe was made with sha256:"):
        pin_model(before)
    assert RealImages.recipe("train", ClassOptions(source=str(source))).revision != before.revision


def test_folder__all_broken_images_are_named_before_the_clone_is_made(source: Path) -> None:
    for name in ("a.jpg", "c.png", "d.gif"):
        (source / "cat" / name).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"3 of 5 images.*--skip-broken") as message:
        RealImages.recipe("train", ClassOptions(source=str(source)))
    assert all(f"{name}' (not an image" in str(message.value) for name in ("a.jpg", "c.png", "d.gif"))


def test_folder__broken_images_are_left_out_up_to_a_fraction(source: Path) -> None:
    (source / "cat" / "a.jpg").write_bytes(b"broken")
    recipe = RealImages.recipe("train", ClassOptions(source=str(source), skip_broken=0.4))
    assert [(entry.wnid, entry.base_count) for entry in recipe.classes] == [("ant", 1), ("cat", 1)]
    assert recipe.num_left_out == 1 and not any(
        p.problem for p in folder.load(recipe, Execution())(Plan(recipe, 1).shard_samples(0))
    )
    assert pin_model(recipe) == recipe
    with pytest.raises(UserError, match=r"1 of 3 images.*more than the 10\.00% of --skip-broken"):
        RealImages.recipe("train", ClassOptions(source=str(source), skip_broken=0.1))
    (source / "cat" / "b.JPEG").write_bytes(b"broken")
    with pytest.raises(UserError, match="no image of class folder"):
        RealImages.recipe("train", ClassOptions(source=str(source), skip_broken=0.9))


def test_folder__empty_classes_are_reported(source: Path) -> None:
    (source / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty' holds no"):
        RealImages.recipe("train", ClassOptions(source=str(source)))


def test_folder__a_missing_source_is_reported(tmp_path: Path) -> None:
    for model_dir in (str(tmp_path / "no"), str(tmp_path)):
        with pytest.raises(UserError, match="class folders"):
            RealImages.recipe("train", ClassOptions(source=model_dir))
    with pytest.raises(UserError, match="--source"):
        RealImages.recipe("train")


def test_folder__other_images_than_those_of_the_recipe_or_too_many_are_refused(source: Path) -> None:
    recipe = pin_model(RealImages.recipe("train", ClassOptions(source=str(source))))
    with pytest.raises(UserError, match="was made with sha256:other"):
        pin_model(replace(recipe, revision="sha256:other"))
    with pytest.raises(UserError, match=r"3 images per class are more than the largest class has \(2\)"):
        Plan(recipe, 3)


def test_folder__a_cache_that_cannot_be_written_is_not_needed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").touch()
    monkeypatch.setenv("FAKEIT_CACHE", str(source / "file" / "cache"))
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    assert not any(
        generated.problem for generated in folder.load(recipe, Execution())(Plan(recipe, 2).shard_samples(0))
    )


def test_folder__a_long_list_of_broken_files_is_written_to_a_file(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKEIT_CACHE", str(source.parent / "cache"))
    for number in range(103):
        (source / "cat" / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"(?s)103 of 106 images.*and 3 more; all are listed in '(.*)'$") as message:
        RealImages.recipe("train", ClassOptions(source=str(source)))
    listing = Path(str(message.value).rpartition("listed in '")[2].rstrip("'"))
    assert len(listing.read_text().splitlines()) == 103
