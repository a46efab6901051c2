"""Reads a finished clone: its manifest, its metadata, and any sample by number or key. Nothing is unpacked.

clone = open_clone("imagenet-100-sd")                  # or hf://datasets/user/name[@revision], s3://…, any fsspec URL
sample = clone[12345]                                  # key, label, encoded image
sample = clone[clone.find("n01558993_00000007")]

A clone on a disk is mapped into memory. Samples of a remote clone are fetched by byte ranges, and each is checked
against its sha256. With a cache, whole shards are fetched, checked and kept while there is room.
"""

import bisect
import itertools
import mmap
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builders.errors import SampleNotFoundError, UserError
from builders.format.manifest import Manifest, ShardEntry
from builders.format.metadata_reader import MetadataReader
from builders.format.names import SHARDS_PER_METADATA_FILE
from builders.format.resolve import open_manifest
from builders.format.rounds import MAX_COUNT, Rounds
from builders.format.samples import EncodedSample, ImageRange, SampleView
from builders.format.shard_cache import ShardCache
from builders.images.read import AS_SEEN, ReadImage, decode_sample, read_image
from builders.storage.base import open_storage

NUM_OPEN_SHARDS = 64
BYTES_PAST_CACHE = 32 * 2**20
"""Bytes that each process reads by ranges while shards are fetched, so that its first batches do not wait."""


class Clone:
    """A finished clone with samples numbered 0 … n - 1 in shard order. It is cheap to open and to send to a worker.

    Memory is bounded: only the indexes and the memory maps of the `NUM_OPEN_SHARDS` most recently used shards are kept.
    """

    def __init__(self, root: str, manifest: Manifest, cache: ShardCache | None = None) -> None:
        self.root, self.manifest = root, manifest
        self.storage = open_storage(root)
        self.cache = None if self.storage.is_local else cache
        self._bytes_past_cache = BYTES_PAST_CACHE
        self._indexed: set[int] = set()
        self._has_ranges: bool | None = None
        self._reader = MetadataReader(root, manifest, self.storage, self.cache)
        self.shard_index = lru_cache(maxsize=NUM_OPEN_SHARDS)(self._reader.index)
        self._map = lru_cache(maxsize=NUM_OPEN_SHARDS)(self._open_map)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "manifest": self.manifest, "cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def shard_starts(self) -> list[int]:
        """The number of each shard's first sample, followed by the number of all samples."""
        return [0, *itertools.accumulate(shard.num_samples for shard in self.manifest.shards)]

    def __len__(self) -> int:
        return self.shard_starts[-1]

    def locate(self, number: int) -> tuple[int, int]:
        """Returns the shard of a sample, and the sample's row in the shard.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = bisect.bisect_right(self.shard_starts, number) - 1
        return shard, number - self.shard_starts[shard]

    def __getitem__(self, number: int) -> EncodedSample:
        view = self.view(number)
        return EncodedSample(view.key, view.label, view.image.tobytes())

    def view(self, number: int) -> SampleView:
        """Returns a sample without copying its image, for callers that decode it at once."""
        location = self._location(number)
        if self.storage.is_local:
            image_map = self._read_map(location.shard, location.start, location.end)
            return SampleView(location.key, location.label, image_map, location.prompt_index)
        image = self.cache.read(self.storage, location.shard, location.start, location.end) if self.cache else None
        return location.view(self._read_range(location) if image is None else image)

    def views(self, numbers: Sequence[int]) -> list[SampleView]:
        """Returns the samples of a batch, each as `view` does.

        Samples of a remote clone whose shards are not in the cache are fetched by ranges, all together. With a cache, a
        process fetches only its first `BYTES_PAST_CACHE` bytes by ranges, and none after a range has failed. After that
        it waits for the shards, which the prefetcher fetches.
        """
        found = {} if self.storage.is_local else self._views_past_cache(numbers)
        return [found.get(number) or self.view(number) for number in numbers]

    def _views_past_cache(self, numbers: Sequence[int]) -> dict[int, SampleView]:
        """Returns those of the samples that are fetched by ranges; `view` reads the others."""
        shards = {number: self.locate(number)[0] for number in numbers}
        absent = {shard for shard in set(shards.values()) if not self._is_in_cache(shard)}
        missing = [number for number, shard in shards.items() if shard in absent]
        is_requested = bool(missing) and self._bytes_past_cache > 0 and self._has_ranges is not False
        self._read_indexes(set(shards.values()), self.manifest.shards[min(absent)].name if is_requested else None)
        if not is_requested or not self._has_ranges:
            return {}
        locations = {number: self._location(number) for number in missing}
        if self.cache:
            ends = itertools.accumulate(location.num_bytes for location in locations.values())
            fitting = sum(end <= self._bytes_past_cache for end in ends)
            locations = dict(itertools.islice(locations.items(), fitting))
        contents = self.storage.read_ranges(
            [(location.shard.name, location.start, location.end) for location in locations.values()]
        )
        found = {
            number: location.view(content)
            for (number, location), content in zip(locations.items(), contents, strict=True)
            if content is not None and location.matches(content)
        }
        if self.cache:
            is_over = len(found) < len(missing)
            self._bytes_past_cache = (
                0 if is_over else self._bytes_past_cache - sum(p.num_bytes for p in locations.values())
            )
        return found

    def _location(self, number: int) -> ImageRange:
        shard, row = self.locate(number)
        index, entry = self.shard_index(shard), self.manifest.shards[shard]
        start = index["image_offset"][row]
        end = start + index["image_size"][row]
        sha256 = "" if self.storage.is_local else index["sha256"][row]
        return ImageRange(entry, start, end, index["key"][row], index["label"][row], sha256, index["prompt_index"][row])

    def _is_in_cache(self, shard: int) -> bool:
        return self.cache is not None and self.cache.has(self.manifest.shards[shard])

    def _read_indexes(self, shards: set[int], shard_to_try: str | None) -> None:
        """Reads the indexes of some shards together, and tests at the same time whether the server supports ranges."""
        requested: list[Callable[[], object]] = []
        shards = shards - self._indexed
        if self.cache:
            # One request per metadata file: threads with the same file would wait for each other's lock.
            files = {shard // SHARDS_PER_METADATA_FILE for shard in shards}
            requested += [partial(self.cache.fetch, self.storage, self.manifest.metadata[number]) for number in files]
        else:
            requested += [partial(self.shard_index, shard) for shard in shards]
        if shard_to_try and self._has_ranges is None:
            requested.append(partial(self._try_ranges, shard_to_try))
        if requested:
            self.storage.each(lambda request: request(), requested)
        for shard in shards:
            self.shard_index(shard)
        self._indexed |= shards

    def _try_ranges(self, shard: str) -> None:
        self._has_ranges = self.storage.has_ranges(shard)

    def decoded(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """Returns a sample's RGB pixels (height, width, 3), read as `AS_SEEN`, and its label."""
        sample = self.view(number)
        return decode_sample(sample.key, sample.image), sample.label

    def read_labeled(self, number: int, policy: str = AS_SEEN) -> tuple[ReadImage, int]:
        """Returns a sample's image, read by the policy `AS_SEEN` or `AS_PUBLISHED`, and its label.

        Raises:
            UserError: the image cannot be read.
        """
        sample = self.view(number)
        try:
            return read_image(sample.image, policy), sample.label
        except ValueError as error:
            raise UserError(
                f"sample '{sample.key}' of '{self.root}' cannot be read ({error}); run 'fakeit-build verify --deep'"
            ) from None

    def __iter__(self) -> Iterator[EncodedSample]:
        return (self[number] for number in range(len(self)))

    def key(self, number: int) -> str:
        """Returns the key of a sample without reading its image."""
        shard, row = self.locate(number)
        return str(self.shard_index(shard)["key"][row])

    def find(self, key: str) -> int:
        """Returns the number of the sample with a key. It reads the index of a single shard.

        Raises:
            SampleNotFoundError: the clone has no such sample.
        """
        wnid, _, index = key.rpartition("_")
        if wnid in self._labels and index.isdecimal() and len(index) < 10:
            shard = self.rounds.find_shard(self._labels[wnid], int(index))
            keys = self.shard_index(shard)["key"] if shard < len(self.manifest.shards) else []
            if key in keys:
                return self.shard_starts[shard] + keys.index(key)
        raise SampleNotFoundError(f"'{self.root}' has no sample '{key}'; its first one is '{self.key(0)}'")

    @property
    def class_names(self) -> list[str]:
        """The name of each label's class, or the class id if the recipe gives no name."""
        names = {entry.get("wnid"): str(entry.get("name")) for entry in self.manifest.recipe.get("classes", [])}
        return [names.get(identity, identity) for identity in self.manifest.label_names]

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.manifest.label_names)}

    @cached_property
    def rounds(self) -> Rounds:
        recipe = self.manifest.recipe
        try:
            counts = tuple(int(entry["base_count"]) for entry in recipe["classes"])
            found = Rounds(counts, int(recipe["shard_size"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            counts = ()
        if len(counts) != len(self.manifest.label_names) or not 1 <= min(counts, default=0) <= max(counts) <= MAX_COUNT:
            raise UserError(
                f"the recipe of '{self.root}' has no valid number of images for each class; run 'fakeit-build verify'"
            )
        return found

    def metadata(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Returns the metadata rows of one shard (see `schema.METADATA_SCHEMA`).

        Raises:
            UserError: the metadata file is missing, broken, or belongs to another clone.
        """
        return self._reader.rows(shard, columns)

    def _read_map(self, entry: ShardEntry, start: int, end: int) -> memoryview:
        try:
            content = self._map(entry.name)[start:end]
        except (OSError, ValueError) as error:
            path = self.storage.path(entry.name)
            raise UserError(f"shard '{path}' cannot be read ({error}); run 'fakeit-build verify {self.root}'") from None
        if len(content) != end - start:
            raise UserError(f"shard '{self.storage.path(entry.name)}' is cut; run 'fakeit-build verify {self.root}'")
        return content

    def _read_range(self, location: ImageRange) -> bytes:
        """Fetches a single image and checks its sha256; after a mismatch it is fetched once more."""
        for _ in range(2):
            try:
                image = self.storage.read(location.shard.name, location.start, location.end)
            except FileNotFoundError:
                raise UserError(
                    f"shard '{self.storage.url(location.shard.name)}' is not there; run 'fakeit-build verify'"
                ) from None
            if location.matches(image):
                return image
        raise UserError(
            f"sample '{location.key}' of '{self.root}' was fetched twice, and has another sha256 than its metadata "
            "says; run 'fakeit-build verify'"
        )

    def _open_map(self, name: str) -> memoryview:
        with open(self.storage.path(name), "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def open_clone(root: str | Path, cache: ShardCache | None = None) -> Clone:
    """Opens a finished clone in a directory or at any fsspec URL. Only remote clones use the cache.

    Raises:
        UserError: there is no clone, it is unfinished, or its manifest is broken.
    """
    return Clone(*open_manifest(str(root), cache), cache)
