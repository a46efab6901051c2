"""A finished clone in the readers that people already have, unchanged: `datasets`, `webdataset`, timm, tar."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.clone_builder import make_clone
from builders.format.manifest import Manifest
from builders.format.open_clone import EncodedSample, open_clone
from builders.images.read import decode_image
from builders.making.plan import Plan


@pytest.fixture(scope="module")
def samples(finished: tuple[Path, Manifest]) -> list[EncodedSample]:
    return list(open_clone(finished[0]))


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets__loads_every_sample_typed(
    finished: tuple[Path, Manifest], samples: list[Any], streaming: bool
) -> None:
    import datasets

    loaded = datasets.load_dataset(str(finished[0]), split="test", streaming=streaming)
    assert loaded.features["cls"].names == finished[1].label_names
    assert isinstance(loaded.features["jpg"], datasets.Image)
    assert loaded.features["json"]["seed"].dtype == "int64"
    rows = list(loaded)
    assert [(row["__key__"], row["cls"]) for row in rows] == [(s.key, s.label) for s in samples]
    assert all((np.asarray(row["jpg"]) == decode_image(s.picture)).all() for row, s in zip(rows, samples, strict=True))
    assert {type(row["json"]["guidance_scale"]) for row in rows} == {float}
    assert {row["json"]["width"] for row in rows} == {32}


def test_datasets__a_grown_clone_is_not_read_from_the_cache(real_plan: Plan, tmp_path: Path) -> None:
    import datasets

    for num_rounds in (3, 5, 8):
        plan = Plan(real_plan.recipe, num_rounds)
        make_clone(plan, str(tmp_path / "clone"))
        loaded = datasets.load_dataset(str(tmp_path / "clone"), split="test")
        assert loaded.num_rows == plan.num_samples
        assert loaded[plan.num_samples - 1]["__key__"] == plan.sample_at(plan.num_samples - 1).key


def test_webdataset__reads_every_sample(finished: tuple[Path, Manifest], samples: list[EncodedSample]) -> None:
    import webdataset

    shards = [str(finished[0] / shard.name) for shard in finished[1].shards]
    rows = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [(row["__key__"], int(row["cls"]), row["jpg"]) for row in rows] == [
        (s.key, s.label, s.picture) for s in samples
    ]


def test_timm__wds_reader_reads_every_sample(finished: tuple[Path, Manifest], samples: list[EncodedSample]) -> None:
    from timm.data import create_dataset

    dataset = create_dataset("wds/", root=str(finished[0]), split="test", is_training=False, batch_size=1)
    assert len(dataset) == len(samples)
    assert [label for _, label in dataset] == [sample.label for sample in samples]


def test_tar__unpacks_pictures(finished: tuple[Path, Manifest], samples: list[EncodedSample], tmp_path: Path) -> None:
    shutil.unpack_archive(finished[0] / finished[1].shards[0].name, tmp_path)
    for sample in samples[:5]:
        assert (tmp_path / f"{sample.key}.jpg").read_bytes() == sample.picture
        assert Image.open(io.BytesIO(sample.picture)).size == (32, 32)


def test_builder__streams_and_prepares_the_same_images_as_the_clone(scans: Path, tmp_path: Path) -> None:
    from builders.real_images import RealImages

    builder = RealImages("test", source=str(scans / "test"), images_per_class=3, cache_dir=str(tmp_path / "cache"))
    builder.materialize(tmp_path / "clone")
    made = [(s.key, s.label, decode_image(s.picture).tobytes()) for s in open_clone(tmp_path / "clone")]

    def rows(dataset: Any) -> Iterator[tuple[str, int, bytes]]:
        return ((row["__key__"], row["cls"], np.asarray(row["jpg"]).tobytes()) for row in dataset)

    assert list(rows(builder.as_streaming_dataset(split="test"))) == made
    builder.download_and_prepare()
    assert list(rows(builder.as_dataset(split="test"))) == made
