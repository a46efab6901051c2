"""What an audit found: a summary by kind, class and group of siblings; a row for each picture; a list of keys to skip."""

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
from builders.card.assets import AUDIT, AUDIT_FORMAT, AUDIT_PICTURES
from builders.classes.class_list import ClassEntry
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.storage.base import Storage

KINDS = {
    "broken": "the picture does not decode",
    "blank": "it shows next to nothing",
    "duplicate": "it is nearly the same as an earlier one",
    "nsfw": "the model's safety checker flagged it",
    "label": "the scorer takes it for another class with confidence",
    "sense": "it looks more like another meaning of the class's name",
    "background": "its background's text scores above its class's",
    "medium": "it looks like an illustration, a painting or the like, no photograph",
}
NEEDS_EMBEDDER = ("label", "sense", "background", "medium")
SKIPPED = ("broken", "blank", "duplicate", "nsfw", "label")
"""Kinds that training skips where nobody says which."""
NUM_SHOWN = 3
"""Runner-up classes, and senses, of a class."""


@dataclass(frozen=True)
class ZeroShotAnswers:
    """What the scorer said."""

    images: ImagePredictions
    likely: NDArray[np.int64]
    """The class that each picture confidently is; -1 where it is none."""
    classes: ClassAggregates


@dataclass(frozen=True, kw_only=True)
class ImageFindings:
    """Of each sample of a clone, in its order."""

    keys: list[str]
    labels: NDArray[np.int64]
    is_broken: NDArray[np.bool_]
    is_blank: NDArray[np.bool_]
    is_nsfw: NDArray[np.bool_]
    duplicate_of: NDArray[np.int64]
    """The number of the earlier sample; -1 where none."""
    answers: ZeroShotAnswers | None

    @cached_property
    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """Which samples are of each of `KINDS`; those of the scorer only where one was asked."""
        found = {
            "broken": self.is_broken,
            "blank": self.is_blank,
            "duplicate": self.duplicate_of >= 0,
            "nsfw": self.is_nsfw,
        }
        if self.answers:
            said, likely = self.answers.images, self.answers.likely
            found |= {
                "label": (likely >= 0) & (likely != self.labels),
                "sense": said.sense >= 0,
                "background": said.is_swallowed,
                "medium": said.medium >= 0,
            }
        return found


class Audit:
    """The result, and its files."""

    def __init__(
        self, manifest: Manifest, classes: Sequence[ClassEntry], embedder: Embedder | None, findings: ImageFindings
    ) -> None:
        self.manifest, self.classes, self.embedder, self.findings = manifest, classes, embedder, findings

    def summary(self) -> dict[str, Any]:
        """The content of audit.json."""
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
        """A row for each picture: the content of audit.parquet.

        Columns: key, label, findings (names of `KINDS`), duplicate_of (a key or ""); with a scorer also predicted (the most
        probable class, -1 where none), probability (of its own class, 0 to 1), sense (wnid or ""), medium ("photo" or another).
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
            said, senses = found.answers.images, found.answers.classes.text_prompts.senses
            columns |= {
                "predicted": said.predicted,
                "probability": said.probability,
                "sense": [senses[x][y].wnid if y >= 0 else "" for x, y in zip(found.labels, said.sense, strict=True)],
                "medium": np.array(["photo", *MEDIA])[said.medium + 1],
            }
        return pa.table(columns)

    def keys(self, kinds: Collection[str]) -> list[str]:
        """Keys of the samples that are of any of some kinds, in the clone's order.

        Raises:
            UserError: a kind is unknown, or was not looked for.
        """
        check_kinds(kinds, has_embedder=self.embedder is not None)
        found = np.zeros(len(self.findings.keys), np.bool_)
        for kind in kinds:
            found |= self.findings.kinds[kind]
        return [self.findings.keys[number] for number in np.flatnonzero(found)]

    def write(self, storage: Storage) -> None:
        """audit.parquet, and audit.json last."""
        buffer = io.BytesIO()
        pq.write_table(self.images(), buffer)
        storage.write(AUDIT_PICTURES, buffer.getvalue())
        storage.write(AUDIT, (json.dumps(self.summary(), indent=1, ensure_ascii=False) + "\n").encode())

    def _describe_answers(self, answers: ZeroShotAnswers, label: int, diversity: float) -> dict[str, Any]:
        """What the scorer said of a class with pictures that decode."""
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
    """Whether there are kinds of these names, and they are looked for.

    Raises:
        UserError: one is not.
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
