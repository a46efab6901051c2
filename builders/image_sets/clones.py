"""Reads the images of a clone, on disk or at a URL."""

import copy
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from builders.format.open_clone import Clone, open_clone
from builders.format.shard_cache import ShardCache, default_cache
from builders.image_sets.base import ImageSet, Labels
from builders.images.read import ReadImage


def open_clone_images(root: str, cache: ShardCache | None = None) -> ImageSet:
    """Opens all images of a clone, in the order of its samples.

    Args:
        root: Directory or URL of the clone.
        cache: Cache of its shards; by default the user's.

    Raises:
        UserError: the clone is missing, unfinished or broken.
    """
    clone = open_clone(root, cache or default_cache())
    manifest = clone.manifest
    labels = [clone.shard_index(shard)["label"] for shard in range(len(manifest.shards))]
    return ImageSet(
        name=str(manifest.recipe["name"]),
        location=root,
        class_names=tuple(manifest.label_names),
        display_names=tuple(clone.class_names),
        labels=np.concatenate([np.array(some, dtype=np.int64) for some in labels]),
        digest=manifest.digest,
        read=_ReadClone(clone),
        key_of=clone.key,
        prompt_ids=(lambda: _prompt_ids(clone)) if manifest.is_synthetic else None,
        seed=int(manifest.recipe["seed"]) if manifest.is_synthetic else None,
    )


def _prompt_ids(clone: Clone) -> Labels:
    prompts = [clone.metadata(shard, ["prompt"])["prompt"] for shard in range(len(clone.manifest.shards))]
    chunked = pa.chunked_array([chunk for column in prompts for chunk in column.chunks])
    return np.concatenate([chunk.indices for chunk in chunked.dictionary_encode().chunks]).astype(np.int64)


@dataclass(frozen=True)
class _ReadClone:
    clone: Clone

    def __call__(self, number: int, policy: str) -> ReadImage:
        return self.clone.read_labeled(number, policy)[0]

    def __copy__(self) -> "_ReadClone":
        return _ReadClone(copy.copy(self.clone))
