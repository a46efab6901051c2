"""Results of an audit: a summary by kind, class and sibling classes; a row for each image; a list of keys to skip."""

import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from builders.audit.aggregate import ClassAggregates, ImagePredictions
from builders.audit.embedder import Embedder
from builders.audit.text_prompts import MEDIA
from builders.card.assets import AUDIT, AUDIT_FORMAT, AUDIT_IMAGES
from builders.classes.class_list import ClassEntry
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.storage.base import Storage

KINDS = {
    "broken": "the image does not decode",
    "blank": "the image is nearly uniform",
    "duplicate": "the image is nearly the same as an earlier one",
    "nsfw": "the safety checker of the diffusion model flagged the image",
    "label": "the image-text model confidently predicts another class",
    "sense": "the image looks more like another meaning of the class's name",
    "background": "the text of the background scores above the text of the class",
    "medium": "the image looks like an illustration, a drawing or the like, not a photograph",
}
NEEDS_EMBEDDER = ("label", "sense", "background", "medium")
SKIPPED = ("broken", "blank", "duplicate", "nsfw", "label")
"""Kinds whose images training skips unless the user chooses the kinds."""
NUM_SHOWN = 3
"""Number of runner-up classes, and of senses, that the summary of a class lists."""


@dataclass(frozen=True)
class ZeroShotAnswers:
    """Answers of the image-text model for a whole clone."""

    images: ImagePredictions
    likely: NDArray[np.int64]
    """Class that each image confidently shows; -1 if none."""
    classes: ClassAggregates


@dataclass(frozen=True, kw_only=True)
class ImageFindings:
    """Findings for each sample of a clone, in the order of the clone."""

    keys: list[str]
    labels: NDArray[np.int64]
    is_broken: NDArray[np.bool_]
    is_blank: NDArray[np.bool_]
    is_nsfw: NDArray[np.bool_]
    duplicate_of: NDArray[np.int64]
    """Number of the earlier sample that each sample nearly duplicates; -1 if none."""
    answers: ZeroShotAnswers | None

    @cached_property
    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """Mask (n,) of the samples with each of `KINDS`; kinds that need an image-text model are absent without one."""
        found = {
            "broken": self.is_broken,
            "blank": self.is_blank,
            "duplicate": self.duplicate_of >= 0,
            "nsfw": self.is_nsfw,
        }
        if self.answers:
            predictions, likely = self.answers.images, self.answers.likely
            found |= {
                "label": (likely >= 0) & (likely != self.labels),
                "sense": predictions.sense >= 0,
                "background": predictions.is_swallowed,
                "medium": predictions.medium >= 0,
            }
        return found


class Audit:
    """Result of an audit, which writes its files."""

    def __init__(
        self, manifest: Manifest, classes: Sequence[ClassEntry], embedder: Embedder | None, findings: ImageFindings
    ) -> None:
        self.manifest, self.classes, self.embedder, self.findings = manifest, classes, embedder, findings

    def summary(self) -> dict[str, Any]:
        """Returns the content of audit.json."""
        answers, embedder = self.findings.answers, self.embedder
        num_classes = len(self.classes)
        num_images = np.bincount(self.findings.labels, minlength=num_classes)
        of_classes = {
            kind: np.bincount(self.findings.labels[flags], minlength=num_classes)
            for kind, flags in self.findings.kinds.items()
        }
        classes: list[dict[str, Any]] = [
            {
                "wnid": entry.wnid,
                "name": entry.name,
                "num_images": int(num_images[label]),
                "found": {kind: int(counts[label]) for kind, counts in of_classes.items() if counts[label]},
            }
            for label, entry in enumerate(self.classes)
        ]
        if answers:
            diversity = answers.classes.diversity()
            for label in np.flatnonzero(answers.classes.num_images):
                classes[label] |= self._describe_answers(answers, int(label), float(diversity[label]))
        return {
            "format": AUDIT_FORMAT,
            "digest": self.manifest.digest,
            "num_samples": self.manifest.num_samples,
            "scorer": {"model": embedder.name, "revision": embedder.revision} if embedder else None,
            "note": answers.classes.text_prompts.note if answers else "",
            "found": {kind: int(counts.sum()) for kind, counts in of_classes.items()},
            "classes": classes,
            "groups": self._describe_siblings(answers.classes) if answers else [],
        }

    def images(self) -> pa.Table:
        """Returns the content of audit.parquet: a row for each image.

        Columns: key, label, findings (names of `KINDS`), duplicate_of (a key or "").
        With an image-text model also predicted (the most probable class, -1 if none), probability (of the labeled
        class, 0 to 1), sense (wnid or "") and medium ("photo" or one of `MEDIA`).
        """
        found, keys = self.findings, np.array(self.findings.keys)
        kinds = list(found.kinds)
        flags = np.stack(list(found.kinds.values()), axis=1)
        columns: dict[str, Any] = {
            "key": keys,
            "label": found.labels,
            "findings": [[kinds[column] for column in np.flatnonzero(row)] for row in flags],
            "duplicate_of": np.where(found.duplicate_of >= 0, keys[found.duplicate_of], ""),
        }
        if found.answers:
            predictions, senses = found.answers.images, found.answers.classes.text_prompts.senses
            columns |= {
                "predicted": predictions.predicted,
                "probability": predictions.probability,
                "sense": [
                    senses[x][y].wnid if y >= 0 else "" for x, y in zip(found.labels, predictions.sense, strict=True)
                ],
                "medium": np.array(["photo", *MEDIA])[predictions.medium + 1],
            }
        return pa.table(columns)

    def keys(self, kinds: Collection[str]) -> list[str]:
        """Returns the keys of the samples with any of the given kinds of findings, in the order of the clone.

        Raises:
            UserError: a kind is unknown, or the audit did not check it.
        """
        check_kinds(kinds, has_embedder=self.embedder is not None)
        found = np.zeros(len(self.findings.keys), np.bool_)
        for kind in kinds:
            found |= self.findings.kinds[kind]
        return [self.findings.keys[number] for number in np.flatnonzero(found)]

    def write(self, storage: Storage) -> None:
        """Writes audit.parquet, then audit.json."""
        buffer = io.BytesIO()
        pq.write_table(self.images(), buffer)
        storage.write(AUDIT_IMAGES, buffer.getvalue())
        storage.write(AUDIT, (json.dumps(self.summary(), indent=1, ensure_ascii=False) + "\n").encode())

    def _describe_answers(self, answers: ZeroShotAnswers, label: int, diversity: float) -> dict[str, Any]:
        """Summarizes the answers for a class that has images which are neither broken nor blank."""
        counts, total = answers.classes.predictions[label], int(answers.classes.num_images[label])
        others = [int(other) for other in np.argsort(-counts, kind="stable") if counts[other] and other != label]
        senses = answers.images.sense[(self.findings.labels == label) & (answers.images.sense >= 0)]
        return {
            "share": _share(counts[label], total),
            "runner_ups": [
                {"wnid": self.classes[other].wnid, "share": _share(counts[other], total)}
                for other in others[:NUM_SHOWN]
            ],
            "senses": [
                {
                    "wnid": sense.wnid,
                    "lemma": sense.lemma,
                    "definition": sense.definition,
                    "share": _share(count, total),
                }
                for count, sense in _most_frequent(senses, answers.classes.text_prompts.senses[label])
            ],
            "diversity": None if np.isnan(diversity) else round(diversity, 4),
        }

    def _describe_siblings(self, sums: ClassAggregates) -> list[dict[str, Any]]:
        return [
            {
                "parent": name,
                "classes": [self.classes[label].wnid for label in members],
                "accuracy": _share(int(np.trace(sums.confusions[name])), max(int(sums.confusions[name].sum()), 1)),
                "confusion": sums.confusions[name].tolist(),
            }
            for name, members in sums.siblings.items()
        ]


def check_kinds(kinds: Collection[str], *, has_embedder: bool) -> None:
    """Checks that an audit with or without an image-text model looks for these kinds of findings.

    Raises:
        UserError: a kind is unknown, or needs an image-text model and there is none.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"'{kind}' is no kind of finding; choose from {', '.join(KINDS)}")
        if kind in NEEDS_EMBEDDER and not has_embedder:
            raise UserError(f"'{kind}' needs an image-text model; give --clip, such as openai/clip-vit-base-patch32")


def _most_frequent(numbers: NDArray[np.int64], senses: list[Any]) -> list[tuple[int, Any]]:
    counts = np.bincount(numbers, minlength=len(senses))
    order = np.argsort(-counts, kind="stable")[:NUM_SHOWN]
    return [(int(counts[number]), senses[number]) for number in order if counts[number]]


def _share(count: "int | np.int64", total: int) -> float:
    return round(float(count) / total, 4)
