"""Measures a model's features: sparsity, intra-class distance, redundancy and coding length: `fakeit-eval analyze`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from builders.image_sets.base import ImageSet, Labels
from fakeit_eval.analyze import analyze
from fakeit_eval.evaluate.cached_result import Score, cached_result, num_cut_files
from fakeit_eval.evaluate.classifier import known_classes
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.features.rows import Rows, Stacked
from fakeit_eval.models import Model
from fakeit_eval.open_tasks import OpenedTask
from fakeit_eval.open_test_sets import OpenedSet
from fakeit_eval.reporting.results import Evaluated, describe_data, describe_features

MEASURED_FAMILIES = ("small", "inaturalist", "offline")
"""Families of tasks in the third domain; the paper leaves out the CoG levels (supplementary, section 3.3)."""
TRANSFER = "transfer"
"""The third domain of the feature analysis; the other two are those of the test sets."""


def analyze_test_set(
    model: Model, opened: OpenedSet, loading: Loading, normalization: str, *, again: bool = False
) -> Path:
    """Measures the features of a test set, of the classes that the model knows; the path of the result.

    Raises:
        UserError: an image is broken, the normalization is unknown, or a measure is not defined for these features.
    """
    is_matched = opened.row and model.backbone.classes
    images = known_classes(model, opened)[0] if is_matched else opened.images
    data = describe_data(images.name, [images], opened.difference)
    domain = opened.row.domain if opened.row else ""
    return _analyze_images(model, data, domain, [images], loading, normalization, again)


def analyze_task(
    model: Model, opened: OpenedTask, loading: Loading, normalization: str, *, again: bool = False
) -> Path:
    """Measures the features of all images of a transfer task (supplementary, section 3.3); the path of the result.

    Raises:
        UserError: see `analyze_test_set`.
    """
    splits = list(opened.splits.values())
    data = describe_data(opened.task.name, splits, _other_count(opened))
    domain = TRANSFER if opened.task.family in MEASURED_FAMILIES else ""
    return _analyze_images(model, data, domain, splits, loading, normalization, again)


def analyze_features(
    source: Evaluated, splits: Mapping[str, tuple[Rows, Labels]], normalization: str, *, again: bool = False
) -> Path:
    """Measures features from a file, all splits together; the path of the result.

    Raises:
        UserError: see `analyze_test_set`.
    """
    labels = np.concatenate([known for _, known in splits.values()])

    def compute() -> Score:
        return _score(Stacked([rows for rows, _ in splits.values()]), labels, normalization)

    data, settings = describe_features(source, labels), _settings("", normalization)
    return cached_result(source, "analyze", data, settings, compute, again=again)


def _analyze_images(
    model: Model,
    data: dict[str, Any],
    domain: str,
    splits: list[ImageSet],
    loading: Loading,
    normalization: str,
    again: bool,
) -> Path:
    def compute() -> Score:
        found = [extract(model, images, loading) for images in splits]
        labels = np.concatenate([images.labels for images in splits])
        return _score(Stacked(found), labels, normalization, num_cut_files(found))

    return cached_result(model, "analyze", data, _settings(domain, normalization), compute, again=again)


def _score(rows: Rows, labels: Labels, normalization: str, num_cut: int = 0) -> Score:
    measures = analyze(rows, labels, normalization)
    return Score(value=measures["coding_length"], unit="nats", more={"measures": measures}, num_cut_files=num_cut)


def _settings(domain: str, normalization: str) -> dict[str, Any]:
    return {"reading": normalization, "group": domain}


def _other_count(opened: OpenedTask) -> str:
    """How many images a task has instead of the paper's, in words; "" if the number is right or not known."""
    task, found = opened.task, sum(len(images) for images in opened.splits.values())
    expected = task.train + task.val + task.test
    return f"{found:,} images instead of {expected:,}" if expected and found != expected else ""
