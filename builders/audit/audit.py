"""READ FIRST. Finds faulty images of a clone: the whole of `fakeit-build audit`. It never deletes anything.

image_checks  checks every image once: does it decode, is it blank; computes its perceptual hash and its embedding
text_prompts  embeds texts about the classes: names, other senses of the names, scenes, media
zero_shot     compares image embeddings with text embeddings
aggregate     sums the predictions over classes and sibling classes
duplicates    finds perceptual hashes that differ in few bits
findings      the result: audit.json, audit.parquet, a list of keys to skip
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builders.audit.aggregate import ClassAggregates, ImagePredictions, sibling_classes
from builders.audit.duplicates import nearest_earlier
from builders.audit.embedder import Embedder
from builders.audit.findings import Audit, ImageFindings, ZeroShotAnswers
from builders.audit.image_checks import Reader
from builders.audit.text_prompts import embed_prompts, with_parents
from builders.classes.class_list import ClassEntry
from builders.format.open_clone import Clone, open_clone
from builders.format.shard_cache import default_cache
from builders.recipes.recipe import recipe_from_dict
from builders.storage.cache_folder import cache_folder

BLANK_SPREAD = 16.0
"""An image counts as blank if fewer gray levels (of 255) lie between its 1st and 99th percentile."""


def audit_clone(
    root: str,
    embedder: Embedder | None = None,
    *,
    batch_size: int = 64,
    num_threads: int = 2,
    cache: Path | None = None,
    on_images: Callable[[int], object] = lambda num_images: None,
) -> Audit:
    """Checks every image of a clone. Results are kept in `cache`, so a second audit takes seconds.

    Args:
        root: Directory or URL of the clone.
        embedder: Image-text model; without one, only the images themselves and their metadata are checked.
        batch_size: Number of images per forward of the model.
        num_threads: Number of threads that decode images.
        cache: Folder for the results, `$FAKEIT_CACHE` by default.
        on_images: Called with the number of images checked since the last call.

    Raises:
        UserError: the clone cannot be read.
    """
    clone = open_clone(root, default_cache())
    classes = with_parents(recipe_from_dict(clone.manifest.recipe).classes)
    reader = Reader(clone, embedder, (cache or cache_folder()) / "audit", batch_size, num_threads)
    labels, nsfw, backgrounds = _metadata(clone)
    hashes, spreads = [], []
    for shard in range(len(clone.manifest.shards)):
        found = reader.read(shard, on_images)
        hashes.append(found.hashes)
        spreads.append(found.spread)
    spread = np.concatenate(spreads)
    is_broken, is_blank = spread < 0, (spread >= 0) & (spread < BLANK_SPREAD)
    shows_nothing = is_broken | is_blank
    images = ImageFindings(
        keys=[clone.key(number) for number in range(len(clone))],
        labels=labels,
        is_broken=is_broken,
        is_blank=is_blank,
        is_nsfw=nsfw == 1,
        duplicate_of=_duplicates(np.concatenate(hashes), shows_nothing),
        answers=_zero_shot(classes, reader, labels, backgrounds, shows_nothing) if embedder else None,
    )
    return Audit(clone.manifest, classes, embedder, images)


def _metadata(clone: Clone) -> tuple[NDArray[np.int64], NDArray[np.int64], list[list[str]]]:
    """Returns label and nsfw flag of every sample, and a list of backgrounds per shard."""
    labels, nsfw, backgrounds = [], [], []
    for shard in range(len(clone.manifest.shards)):
        columns = clone.metadata(shard, ["label", "nsfw", "background"]).to_pydict()
        labels.append(columns["label"])
        nsfw.append(columns["nsfw"])
        backgrounds.append(columns["background"])
    return np.concatenate(labels), np.concatenate(nsfw), backgrounds


def _duplicates(hashes: NDArray[np.uint8], skipped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns for each sample the number of the earlier sample that it nearly duplicates; -1 if none."""
    numbers = np.flatnonzero(~skipped)
    nearest = nearest_earlier(hashes[numbers])
    found = np.full(len(skipped), -1, np.int64)
    found[numbers] = np.where(nearest >= 0, numbers[nearest], -1)
    return found


def _zero_shot(
    classes: tuple[ClassEntry, ...],
    reader: Reader,
    labels: NDArray[np.int64],
    backgrounds: list[list[str]],
    skipped: NDArray[np.bool_],
) -> ZeroShotAnswers:
    """Returns the answers of the image-text model.

    Reads the embeddings of each shard twice, because the thresholds for likely labels depend on all shards.
    """
    assert reader.embedder
    scenes = sorted({scene for found in backgrounds for scene in found if scene})
    text_prompts = embed_prompts(classes, scenes, reader.embedder)
    sums = ClassAggregates(text_prompts, sibling_classes(classes), reader.embedder.logit_scale)
    starts = reader.clone.shard_starts
    predictions, likely = [], []
    for shard, (start, end) in enumerate(itertools.pairwise(starts)):
        embeddings = reader.read(shard).embeddings
        predictions.append(sums.add(embeddings, labels[start:end], backgrounds[shard], skipped[start:end]))
    for shard, (start, end) in enumerate(itertools.pairwise(starts)):
        likely.append(np.where(skipped[start:end], -1, sums.likely(reader.read(shard).embeddings)))
    columns = {
        name: np.concatenate([getattr(prediction, name) for prediction in predictions]) for name in vars(predictions[0])
    }
    return ZeroShotAnswers(ImagePredictions(**columns), np.concatenate(likely), sums)
