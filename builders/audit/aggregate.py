"""What an image-text model says of a whole clone, shard by shard: of each picture, each class, each group of siblings."""

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
    """Of each picture."""

    predicted: NDArray[np.int64]
    """Its most probable class."""
    probability: NDArray[np.float32]
    """Of the class that it is labelled as, 0 to 1."""
    sense: NDArray[np.int64]
    medium: NDArray[np.int64]
    is_swallowed: NDArray[np.bool_]


def sibling_classes(classes: Sequence[ClassEntry]) -> dict[str, list[int]]:
    """Labels of the classes that share a parent, by the parent's name, where there are two or more."""
    siblings: dict[str, list[int]] = defaultdict(list)
    for label, entry in enumerate(classes):
        if entry.hypernym:
            siblings[entry.hypernym].append(label)
    return {name: labels for name, labels in sorted(siblings.items()) if len(labels) > 1}


class ClassAggregates:
    """Sums over the pictures of each class."""

    def __init__(self, text_prompts: TextPrompts, siblings: dict[str, list[int]], logit_scale: float) -> None:
        self.text_prompts, self.siblings, self.logit_scale = text_prompts, siblings, logit_scale
        num_classes, width = text_prompts.classes.shape
        self.num_images = np.zeros(num_classes, np.int64)
        self.predictions = np.zeros((num_classes, num_classes), np.int64)
        """(labelled as, most probable class)."""
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
        """Counts a shard's pictures in, and says what each is; those that are skipped have -1, 0 and False."""
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
        found.medium[whole] = zero_shot.other_media(seen, best, self.text_prompts)  # whatever it is labelled as
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
        """Once all are counted: the class that each picture confidently is, -1 where it is none."""
        # Of a class without pictures nothing is known, and nothing is taken to be one.
        thresholds = np.divide(
            self.probability_sums,
            self.num_images,
            out=np.full(len(self.num_images), 2.0),
            where=self.num_images > 0,
        )
        if not embeddings.shape[1]:  # all are broken
            return np.full(len(embeddings), -1)
        found = zero_shot.probabilities(embeddings.astype(np.float32), self.text_prompts.classes, self.logit_scale)
        return zero_shot.likely_labels(found, thresholds.astype(np.float32))

    def diversity(self) -> NDArray[np.float64]:
        """Mean cosine distance (1 - cosine) over the pairs of a class's pictures; NaN of fewer than two."""
        count = self.num_images.astype(np.float64)
        squares = (self.vector_sums**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = 1 - (squares - count) / (count * (count - 1))
        return np.where(count > 1, found, np.nan)
