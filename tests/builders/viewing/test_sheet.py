from pathlib import Path

import numpy as np
import pytest

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.viewing.sheet import draw_sheet, read_clone_images


def test_sheet__has_a_block_for_real_images_and_one_for_the_clone(finished: tuple[Path, Manifest], scans: Path) -> None:
    alone = draw_sheet([str(finished[0])], None, 4, [])
    both = draw_sheet([str(finished[0])], str(scans / "train"), 4, [])
    assert both.height == alone.height and both.width > alone.width
    assert np.asarray(both).std() > 20


def test_sheet__shows_the_requested_number_of_images_of_every_class(finished: tuple[Path, Manifest]) -> None:
    images = read_clone_images(str(finished[0]), 3, finished[1].label_names)
    assert {name: len(row) for name, row in images.items()} == dict.fromkeys(finished[1].label_names, 3)


def test_sheet__shows_chosen_classes_in_the_requested_order(finished: tuple[Path, Manifest]) -> None:
    out, manifest = str(finished[0]), finished[1]
    one = draw_sheet([out], None, 2, ["three"])
    two = draw_sheet([out], None, 2, ["three", manifest.label_names[0]])
    assert two.height > one.height
    assert np.array_equal(np.asarray(one)[:80], np.asarray(two)[:80])
    with pytest.raises(UserError, match="has no class 'nine hundred'"):
        draw_sheet([out], None, 2, ["nine hundred"])
