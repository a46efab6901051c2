from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.classes.class_options import ClassOptions
from builders.format.errors import UserError
from builders.format.images import encode_image
from builders.making.engines import folder
from builders.making.models import pin_model
from builders.making.plan import Plan
from builders.real_images import RealImages

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


def test_folder__classes_are_the_folders_and_counts_their_pictures(source: Path) -> None:
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    assert [(entry.wnid, entry.base_count) for entry in recipe.classes] == [("ant", 1), ("cat", 2)]


def test_folder__ready_files_are_kept_and_others_encoded(source: Path) -> None:
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    plan = Plan(recipe, 2)
    pictures = {
        s.key: p.picture for s, p in zip(plan.shard_samples(0), folder.load(recipe)(plan.shard_samples(0)), strict=True)
    }
    assert pictures["cat_00000001"] == (source / "cat" / "b.JPEG").read_bytes()
    assert np.shape(pictures["cat_00000000"]) == np.shape(pictures["ant_00000000"]) == (10, 14, 3)


def test_folder__the_digest_follows_names_and_sizes(source: Path) -> None:
    before = folder.listing_digest(str(source))
    (source / "cat" / "c.png").write_bytes(b"x")
    folder.list_class_folders.cache_clear()
    assert folder.listing_digest(str(source)) != before


def test_folder__broken_pictures_and_empty_classes_are_told(source: Path, tmp_path: Path) -> None:
    (source / "cat" / "a.jpg").write_bytes(b"broken")
    recipe = RealImages.recipe("train", ClassOptions(source=str(source)))
    with pytest.raises(UserError, match=r"a.jpg' cannot be read"):
        folder.load(recipe)(Plan(recipe, 2).shard_samples(0))
    (source / "empty").mkdir()
    folder.list_class_folders.cache_clear()
    with pytest.raises(UserError, match=r"empty' holds no"):
        RealImages.recipe("train", ClassOptions(source=str(source)))


def test_folder__a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    for model_dir in (str(tmp_path / "no"), str(tmp_path)):
        with pytest.raises(UserError, match="class folders"):
            RealImages.recipe("train", ClassOptions(source=model_dir))
    with pytest.raises(UserError, match="--source"):
        RealImages.recipe("train")


def test_folder__other_pictures_than_the_recipes_and_more_than_there_are_are_refused(source: Path) -> None:
    recipe = pin_model(RealImages.recipe("train", ClassOptions(source=str(source))))
    with pytest.raises(UserError, match="was made with sha256:other"):
        pin_model(replace(recipe, revision="sha256:other"))
    with pytest.raises(UserError, match=r"3 images per class are more than the largest class has \(2\)"):
        Plan(recipe, 3)
