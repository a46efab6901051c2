"""Sums the zero-shot predictions for a clone, shard by shard: per image, per class, and among sibling classes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.audit import zero_shot
from builders.audit.text_prompts import TextPrompts
from builders.classes.class_list import ClassEntry


@dataclass(frozen=True, kw_only=True)
class ImagePredictions:
    """Zero-shot predictions for n images; every field has shape (n,)."""

    predicted: NDArray[np.int64]
    """Most probable class; -1 for a skipped image."""
    probability: NDArray[np.float32]
    """Probability of the class that the image is labeled as, 0 to 1."""
    sense: NDArray[np.int64]
    """Number of the other sense of the class's name that the image shows; -1 if none."""
    medium: NDArray[np.int64]
    """Number of the medium in `MEDIA` that the image shows; -1 for a photograph."""
    is_swallowed: NDArray[np.bool_]
    """Whether the image matches the text of its background better than the text of its class."""


def sibling_classes(classes: Sequence[ClassEntry]) -> dict[str, list[int]]:
    """Returns the labels of the classes of each parent, by the parent's name, for parents of two classes or more."""
    siblings: dict[str, list[int]] = defaultdict(list)
    for label, entry in enumerate(classes):
        if entry.hypernym:
            siblings[entry.hypernym].append(label)
    return {name: labels for name, labels in sorted(siblings.items()) if len(labels) > 1}


class ClassAggregates:
    """Running sums over the images of each class."""

    def __init__(self, text_prompts: TextPrompts, siblings: dict[str, list[int]], logit_scale: float) -> None:
        self.text_prompts, self.siblings, self.logit_scale = text_prompts, siblings, logit_scale
        num_classes, width = text_prompts.classes.shape
        self.num_images = np.zeros(num_classes, np.int64)
        self.predictions = np.zeros((num_classes, num_classes), np.int64)
        """Number of images by labeled class (rows) and most probable class (columns)."""
        self.probability_sums = np.zeros(num_classes)
        self.vector_sums = np.zeros((num_classes, width))
        self.confusions = {name: np.zeros((len(members),) * 2, np.int64) for name, members in siblings.items()}

    def add(
        self,
        embeddings: NDArray[np.float16],
        labels: NDArray[np.int64],
        backgrounds: list[str],
        skipped: NDArray[np.bool_],
    ) -> ImagePredictions:
        """Adds the images of a shard, as unit vectors (n, d), to the sums and returns their predictions.

        Skipped images are not counted; their predictions are -1, 0 and False.
        """
        found = ImagePredictions(
            predicted=np.full(len(labels), -1),
            probability=np.zeros(len(labels), np.float32),
            sense=np.full(len(labels), -1),
            medium=np.full(len(labels), -1),
            is_swallowed=np.zeros(len(labels), np.bool_),
        )
        whole = np.flatnonzero(~skipped)
        if not len(whole):
            return found
        seen, given = embeddings[whole].astype(np.float32), labels[whole]
        likelihood = zero_shot.probabilities(seen, self.text_prompts.classes, self.logit_scale)
        own, best = likelihood[np.arange(len(given)), given], likelihood.argmax(axis=1)
        found.predicted[whole], found.probability[whole] = best, own
        found.sense[whole] = zero_shot.nearer_senses(seen, given, self.text_prompts)
        # Uses the most probable class, because the label may be wrong.
        found.medium[whole] = zero_shot.other_media(seen, best, self.text_prompts)
        behind = [backgrounds[row] for row in whole]
        found.is_swallowed[whole] = zero_shot.swallowed(seen, given, behind, self.text_prompts)
        np.add.at(self.num_images, given, 1)
        np.add.at(self.predictions, (given, best), 1)
        np.add.at(self.probability_sums, given, own)
        np.add.at(self.vector_sums, given, seen)
        for name, members in self.siblings.items():
            self.confusions[name] += zero_shot.confusion(likelihood, given, members)
        return found

    def likely(self, embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """Returns the class that each image confidently shows, -1 if none. Valid once all shards are added."""
        # No probability reaches 2.0, so no image is assigned to a class without images.
        thresholds = np.divide(
            self.probability_sums,
            self.num_images,
            out=np.full(len(self.num_images), 2.0),
            where=self.num_images > 0,
        )
        # Embeddings of a shard have no width if all its images are broken.
        if not embeddings.shape[1]:
            return np.full(len(embeddings), -1)
        found = zero_shot.probabilities(embeddings.astype(np.float32), self.text_prompts.classes, self.logit_scale)
        return zero_shot.likely_labels(found, thresholds.astype(np.float32))

    def diversity(self) -> NDArray[np.float64]:
        """Returns each class's mean cosine distance (1 - cosine) over its pairs of images; NaN below two images."""
        count = self.num_images.astype(np.float64)
        squares = (self.vector_sums**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = 1 - (squares - count) / (count * (count - 1))
        return np.where(count > 1, found, np.nan)
