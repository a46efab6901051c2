"""Tests a model's own classifier on a test set: `fakeit-eval test`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.classes.matching import match_classes
from builders.errors import UserError
from builders.image_sets.base import ImageSet
from fakeit_eval.classify import ImageScores, classify, score_images, shared_rows
from fakeit_eval.evaluate.cached_result import Score, cached_result, num_cut_files
from fakeit_eval.features.extract import Loading, extract_scores
from fakeit_eval.models import Model
from fakeit_eval.open_test_sets import OpenedSet
from fakeit_eval.reporting.results import describe_data

if TYPE_CHECKING:
    import pyarrow as pa


def test_classifier(model: Model, opened: OpenedSet, loading: Loading, *, again: bool = False) -> Path:
    """Top-1, top-5, per-class accuracy and confusion of a model's classifier on a test set; the path of the result.

    Raises:
        UserError: an image is broken, the model has no classifier, or it knows none of the set's classes.
    """
    backbone = model.backbone
    if not backbone.classes:
        raise UserError(f"'{model.name}' is an encoder without a classifier to test; use 'fakeit-eval probe'")
    images, unknown = known_classes(model, opened)

    def compute() -> Score:
        features, logits = extract_scores(model, images, loading)
        scores = score_images(logits, images.labels, images.class_names, backbone.classes)
        found = classify(scores)
        return Score(
            value=found.top1,
            unit="% top-1",
            more=found.fields(),
            num_cut_files=num_cut_files([features]),
            images=image_table(images, scores),
        )

    data, settings = _describe(opened, images, unknown), {"input_size": backbone.input_size}
    return cached_result(model, "test", data, settings, compute, again=again)


test_classifier.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test


def image_table(images: ImageSet, scores: ImageScores) -> "pa.Table":
    """A row for each tested image: key, class, predicted class, is_right, confidence and loss (nats)."""
    import pyarrow as pa

    return pa.table({
        "key": [images.key_of(number) for number in range(len(images))],
        "class": [scores.names[number] for number in scores.truth],
        "predicted": [scores.names[number] for number in scores.ranked[:, 0]],
        "is_right": scores.is_right,
        "confidence": scores.confidence.astype(np.float32),
        "loss": scores.loss.astype(np.float32),
    })  # fmt: skip


def known_classes(model: Model, opened: OpenedSet) -> tuple[ImageSet, list[str]]:
    """The images of the classes that a model knows, under the model's class ids; and the names of the other classes."""
    images, backbone = opened.images, model.backbone
    names = images.class_names
    found = match_classes(names, images.display_names, backbone.classes, backbone.class_names, where=images.location)
    ids = tuple(name if label is None else backbone.classes[label] for name, label in zip(names, found, strict=True))
    unknown = [name for name, label in zip(images.display_names or names, found, strict=True) if label is None]
    known = images.subset(shared_rows(images.labels, ids, backbone.classes))
    return replace(known, class_names=ids), unknown


def _describe(opened: OpenedSet, tested: ImageSet, unknown: list[str]) -> dict[str, Any]:
    data = describe_data(opened.images.name, [tested], opened.difference)
    if opened.row is None and unknown:  # the classes of a set in the table are known
        data["unknown_classes"] = unknown
    if opened.images.note:
        data["note"] = opened.images.note
    num_left_out = len(opened.images) - len(tested)
    return {
        **data,
        "num_classes": len(np.unique(tested.labels)),
        **({"left_out": num_left_out} if num_left_out else {}),
        **({"stands_for": opened.row.stands_for} if opened.row and opened.row.stands_for else {}),
    }
