import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builders.format.backbone import Backbone, build_network, head_of
from builders.format.errors import UserError
from builders.format.images import decode_image
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.format.squares import middle_square
from fakeit_eval.backbones import Subject
from fakeit_eval.features import Loading, class_scores, extract
from fakeit_eval.pictures.clones import open_clone_pictures

BACKBONE = Backbone(
    library="torchvision", arch="resnet18", input_size=32, classes=tuple("abcd"), head_bias=True, feature_size=512
)


def fresh_subject(out: Path, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    network = build_network(BACKBONE)
    return Subject("fresh", BACKBONE, f"seed {seed}", out, lambda: network)


def test_features__are_what_the_classifier_sees(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    pictures, subject = open_clone_pictures(str(finished[0])), fresh_subject(tmp_path)
    found = extract(subject, pictures, Loading(batch_size=7, workers=1, cache=tmp_path))
    logits = class_scores(subject, found)
    assert found.shape == (len(pictures), 512) and logits.shape == (len(pictures), 4)
    assert pictures.labels.tolist() == [sample.label for sample in open_clone(finished[0])]
    head = head_of(subject.network)[1]
    expected = found[:] @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert np.allclose(logits, expected, atol=1e-4)


def test_features__are_read_by_slice_and_by_row(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    found = extract(fresh_subject(tmp_path), open_clone_pictures(str(finished[0])), Loading(cache=tmp_path))
    whole = np.load(found.path)
    assert np.array_equal(found[:], whole) and np.array_equal(found[3:9], whole[3:9])
    rows = np.array([5, 0, 60])
    assert np.array_equal(found[rows], whole[rows])


def test_features__come_from_the_cache_until_anything_changes(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    pictures, loading = open_clone_pictures(str(finished[0])), Loading(cache=tmp_path)
    first = extract(fresh_subject(tmp_path), pictures, loading)

    def read(number: int) -> np.ndarray:  # type: ignore[type-arg]
        raise AssertionError("a picture was read again")

    unreadable = replace(pictures, read=read)
    assert extract(fresh_subject(tmp_path), unreadable, loading).path == first.path
    assert extract(fresh_subject(tmp_path, seed=1), pictures, loading).path != first.path
    some = pictures.subset(np.arange(10))
    assert extract(fresh_subject(tmp_path), some, loading).path != first.path
    assert extract(fresh_subject(tmp_path), replace(pictures, state="touched"), loading).path != first.path


def test_features__damaged_ones_are_made_again(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    pictures, loading = open_clone_pictures(str(finished[0])), Loading(cache=tmp_path)
    first = extract(fresh_subject(tmp_path), pictures, loading)
    whole = first[:]
    first.path.write_bytes(first.path.read_bytes()[:-100])
    assert np.array_equal(extract(fresh_subject(tmp_path), pictures, loading)[:], whole)


def test_features__a_broken_picture_is_named_and_the_rest_is_kept(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    pictures = open_clone_pictures(str(finished[0]))

    def read(number: int) -> np.ndarray:  # type: ignore[type-arg]
        if number == 50:
            raise UserError("picture 50 is broken")
        return pictures.read(number)

    with pytest.raises(UserError, match="picture 50 is broken"):
        extract(fresh_subject(tmp_path), replace(pictures, read=read), Loading(cache=tmp_path, batch_size=10))


KILLED = """
import sys, os, signal, time
from pathlib import Path
from dataclasses import replace
import fakeit_eval.features as features
from fakeit_eval.pictures.clones import open_clone_pictures
from tests.fakeit_eval.test_features import fresh_subject
features.SECONDS_BETWEEN_NOTES = 0
pictures = open_clone_pictures(sys.argv[1])
def read(number):
    if number == 45:
        os.kill(os.getpid(), signal.SIGKILL)
    return pictures.read(number)
cache = Path(sys.argv[2])
features.extract(fresh_subject(cache), replace(pictures, read=read), features.Loading(batch_size=10, cache=cache))
"""


def test_features__killed_they_go_on_with_the_next_batch(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    died = subprocess.run([sys.executable, "-c", KILLED, str(finished[0]), str(cache)], check=False)
    assert died.returncode == -signal.SIGKILL
    (progress,) = cache.glob("features/*/progress.json")
    assert json.loads(progress.read_text()) == {"num_done": 40}
    pictures, asked = open_clone_pictures(str(finished[0])), []

    def read(number: int) -> np.ndarray:  # type: ignore[type-arg]
        asked.append(number)
        return pictures.read(number)

    resumed = extract(fresh_subject(tmp_path), replace(pictures, read=read), Loading(batch_size=10, cache=cache))
    assert min(asked) == 40
    whole = extract(fresh_subject(tmp_path), pictures, Loading(batch_size=10, cache=tmp_path / "other"))
    assert np.allclose(resumed[:], whole[:], atol=1e-5) and os.path.samefile(resumed.path.parent, progress.parent)


def test_features__a_network_without_a_plain_classifier_is_told(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    subject = fresh_subject(tmp_path)
    network = torch.nn.Sequential(copy.deepcopy(subject.network), torch.nn.Softmax(dim=1))
    odd = replace(subject, load=lambda: network)
    with pytest.raises(UserError, match="does not end in one linear classifier"):
        extract(odd, open_clone_pictures(str(finished[0])), Loading(cache=tmp_path))


def test_features__preprocessing_is_the_middle_of_the_shortest_side(finished: tuple[Path, Manifest]) -> None:
    picture = decode_image(open_clone(finished[0])[0].picture)
    assert (middle_square(picture, 32) == picture).all()
    wide = np.concatenate([np.zeros_like(picture), picture, np.zeros_like(picture)], axis=1)
    assert (middle_square(wide, 32) == picture).all()
    assert middle_square(wide, 50).shape == (50, 50, 3)


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (37, 32), (32, 33), (64, 64), (33, 1000)])
def test_features__resizing_the_middle_alone_is_resizing_all_and_cropping(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scale = 32 / min(shape)
    wide, high = (max(32, round(side * scale)) for side in (shape[1], shape[0]))
    whole = Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - 32) // 2, (high - 32) // 2
    expected = np.asarray(whole.crop((left, top, left + 32, top + 32)), dtype=int)
    assert np.abs(middle_square(picture, 32) - expected).max() <= 1


def test_features__a_strip_without_end_takes_no_memory() -> None:
    assert middle_square(np.zeros((1, 1_000_000, 3), dtype=np.uint8), 224).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "text", ['{"num_done": 99}', '{"num_done": -3}', '{"num_done": Infinity}', '{"num_done": "5"}', "[]"]
)
def test_features__whatever_progress_says_they_are_whole(
    text: str, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    pictures, loading = open_clone_pictures(str(finished[0])), Loading(cache=tmp_path)
    first = extract(fresh_subject(tmp_path), pictures, loading)
    whole = first[:]
    (first.path.parent / "progress.json").write_text(text)
    assert np.allclose(extract(fresh_subject(tmp_path), pictures, loading)[:], whole, atol=1e-5)


def test_features__that_are_no_numbers_are_told(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    subject = fresh_subject(tmp_path)
    with torch.no_grad():
        next(subject.network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="features that are no numbers"):
        extract(subject, open_clone_pictures(str(finished[0])), Loading(cache=tmp_path))
