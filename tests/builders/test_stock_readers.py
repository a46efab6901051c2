"""Tests that unmodified libraries read a finished clone: `datasets`, `webdataset`, timm, tar."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.format.samples import EncodedSample
from builders.images.read import decode_image
from builders.make_clone import make_clone
from builders.planning.plan import Plan


@pytest.fixture(scope="module")
def samples(finished: tuple[Path, Manifest]) -> list[EncodedSample]:
    return list(open_clone(finished[0]))


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets__loads_every_sample_with_its_types(
    finished: tuple[Path, Manifest], samples: list[Any], streaming: bool
) -> None:
    import datasets

    loaded = datasets.load_dataset(str(finished[0]), split="test", streaming=streaming)
    assert loaded.features["cls"].names == finished[1].label_names
    assert isinstance(loaded.features["jpg"], datasets.Image)
    assert loaded.features["json"]["seed"].dtype == "int64"
    rows = list(loaded)
    assert [(row["__key__"], row["cls"]) for row in rows] == [(s.key, s.label) for s in samples]
    assert all((np.asarray(row["jpg"]) == decode_image(s.image)).all() for row, s in zip(rows, samples, strict=True))
    assert {type(row["json"]["guidance_scale"]) for row in rows} == {float}
    assert {row["json"]["width"] for row in rows} == {32}


def keys_of(row: Any) -> list[str]:
    """Returns the keys of a row, from the container type of any format."""
    found = row["__key__"]
    found = found.to_pylist() if hasattr(found, "to_pylist") else found
    return [found] if isinstance(found, str) else list(found)


def labels_of(row: Any) -> list[int]:
    found = row["cls"]
    return np.atleast_1d(np.asarray(found.to_pylist() if hasattr(found, "to_pylist") else found)).tolist()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["python", "torch", "numpy", "arrow", "pandas", "polars"])
def test_datasets__returns_every_sample_in_every_format(
    form: str, streaming: bool, finished: tuple[Path, Manifest], samples: list[EncodedSample]
) -> None:
    import datasets

    loaded = datasets.load_dataset(str(finished[0]), split="test", streaming=streaming)
    # `datasets` 5.2 cannot decode images of any dataset into polars.
    if form == "polars":
        loaded = loaded.cast_column("jpg", datasets.Image(decode=False))
    loaded = loaded.with_format(None if form == "python" else form)
    # Read row by row: in tables of several rows, `datasets` 5.2 mixes up columns at a tar's last sample.
    rows = list(loaded)
    assert [key for row in rows for key in keys_of(row)] == [sample.key for sample in samples]
    assert [label for row in rows for label in labels_of(row)] == [sample.label for sample in samples]
    assert {*loaded.features} == {"jpg", "cls", "json", "__key__", "__url__"}


def first_sixteen(dataset: Any) -> list[str]:
    return [row["__key__"] for row in dataset.take(16)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d, datasets: d.cast_column("jpg", datasets.Image(mode="L")), lambda keys: keys[:16]),
        (lambda d, datasets: d.filter(lambda row: row["cls"] < 5), None),
        (lambda d, datasets: d.select_columns(["__key__", "cls"]), lambda keys: keys[:16]),
        (
            lambda d, datasets: datasets.interleave_datasets([d, d]),
            lambda keys: [key for key in keys[:8] for _ in range(2)],
        ),
        (lambda d, datasets: datasets.distributed.split_dataset_by_node(d, 0, 1), lambda keys: keys[:16]),
    ],
    ids=["cast_column", "filter", "select_columns", "interleave_datasets", "split_dataset_by_node"],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets__common_operations_work(
    change: Any, expected: Any, streaming: bool, finished: tuple[Path, Manifest], samples: list[EncodedSample]
) -> None:
    import datasets
    import datasets.distributed

    loaded = datasets.load_dataset(str(finished[0]), split="test", streaming=streaming)
    keys = [sample.key for sample in samples]
    small = [sample.key for sample in samples if sample.label < 5][:16]
    assert first_sixteen(change(loaded, datasets)) == (expected(keys) if expected else small)


def test_datasets__ranks_share_the_samples(finished: tuple[Path, Manifest], samples: list[EncodedSample]) -> None:
    import datasets
    from datasets.distributed import split_dataset_by_node

    loaded = datasets.load_dataset(str(finished[0]), split="test", streaming=True)
    found = [row["__key__"] for rank in range(3) for row in split_dataset_by_node(loaded, rank, 3)]
    assert sorted(found) == sorted(sample.key for sample in samples)


def test_datasets__a_stream_resumes_in_the_middle(
    finished: tuple[Path, Manifest], samples: list[EncodedSample]
) -> None:
    import datasets

    loaded = datasets.load_dataset(str(finished[0]), split="test", streaming=True)
    rows = iter(loaded)
    first = [next(rows)["__key__"] for _ in range(25)]
    state = loaded.state_dict()
    again = datasets.load_dataset(str(finished[0]), split="test", streaming=True)
    again.load_state_dict(state)
    assert first + [row["__key__"] for row in again] == [sample.key for sample in samples]


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
        (s.key, s.label, s.image) for s in samples
    ]


def test_timm__wds_reader_reads_every_sample(finished: tuple[Path, Manifest], samples: list[EncodedSample]) -> None:
    from timm.data import create_dataset

    dataset = create_dataset("wds/", root=str(finished[0]), split="test", is_training=False, batch_size=1)
    assert len(dataset) == len(samples)
    assert [label for _, label in dataset] == [sample.label for sample in samples]


def test_tar__unpacks_images(finished: tuple[Path, Manifest], samples: list[EncodedSample], tmp_path: Path) -> None:
    shutil.unpack_archive(finished[0] / finished[1].shards[0].name, tmp_path)
    for sample in samples[:5]:
        assert (tmp_path / f"{sample.key}.jpg").read_bytes() == sample.image
        assert Image.open(io.BytesIO(sample.image)).size == (32, 32)


def test_builder__streams_and_prepares_the_same_images_as_the_clone(scans: Path, tmp_path: Path) -> None:
    from builders.real_images import RealImages

    builder = RealImages("test", source=str(scans / "test"), images_per_class=3, cache_dir=str(tmp_path / "cache"))
    builder.materialize(tmp_path / "clone")
    made = [(s.key, s.label, decode_image(s.image).tobytes()) for s in open_clone(tmp_path / "clone")]

    def rows(dataset: Any) -> Iterator[tuple[str, int, bytes]]:
        return ((row["__key__"], row["cls"], np.asarray(row["jpg"]).tobytes()) for row in dataset)

    assert list(rows(builder.as_streaming_dataset(split="test"))) == made
    builder.download_and_prepare()
    assert list(rows(builder.as_dataset(split="test"))) == made
