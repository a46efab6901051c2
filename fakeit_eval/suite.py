"""Evaluates one model on a suite: test sets, transfer tasks and feature analysis. This is `fakeit-eval suite`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError
from builders.image_sets.annotation_files import DataRoot
from fakeit_eval.analyze import check_normalization
from fakeit_eval.evaluate.analysis import analyze_task, analyze_test_set
from fakeit_eval.evaluate.classifier import test_classifier
from fakeit_eval.evaluate.probe import ProbeSettings, probe_model
from fakeit_eval.features.extract import Loading
from fakeit_eval.models import Model
from fakeit_eval.open_tasks import open_tasks
from fakeit_eval.open_test_sets import open_test_sets


@dataclass(frozen=True)
class Suite:
    test_sets: tuple[str, ...]
    """Names of test sets, or of suites of test sets."""
    tasks: tuple[str, ...]
    """Names or families of transfer tasks."""


SUITES = {
    "digits": Suite(("digits",), ("offline",)),
    "imagenet": Suite(("imagenet",), ("small", "inaturalist")),
    "imagenet_cog": Suite(("imagenet",), ("small", "inaturalist", "cog")),
}
EVALUATIONS = ("test", "probe", "analyze")
NOT_MEASURED = ("cog",)
"""Families of tasks that the paper's feature analysis leaves out (supplementary, section 3.3)."""


def run_suite(
    name: str,
    model: Model,
    data_root: DataRoot,
    loading: Loading,
    settings: ProbeSettings,
    normalization: str,
    *,
    only: Sequence[str] = EVALUATIONS,
    again: bool,
) -> list[Path]:
    """Evaluates a model on a suite, or runs some of its evaluations only; existing results are not computed again.

    Args:
        only: Which of `EVALUATIONS` to run.
        again: Whether to compute existing results again.

    Returns:
        The result files.

    Raises:
        UserError: the suite or an evaluation is unknown, or a dataset is missing.
    """
    if name not in SUITES:
        raise UserError(f"unknown suite '{name}'; choose from {', '.join(SUITES)}")
    for evaluation in only:
        if evaluation not in EVALUATIONS:
            raise UserError(f"unknown evaluation '{evaluation}'; choose from {', '.join(EVALUATIONS)}")
    check_normalization(normalization)
    suite = SUITES[name]
    paths = []
    needs_tasks = "probe" in only or "analyze" in only
    tasks = open_tasks(suite.tasks, data_root) if needs_tasks else []
    for opened in open_test_sets(suite.test_sets, data_root.root):
        # An encoder without a classifier has nothing to test.
        if "test" in only and model.backbone.classes:
            paths.append(test_classifier(model, opened, loading, again=again))
        if "analyze" in only:
            paths.append(analyze_test_set(model, opened, loading, normalization, again=again))
    for task in tasks:
        if "probe" in only:
            paths.append(probe_model(model, task, loading, settings, again=again))
        if "analyze" in only and task.task.family not in NOT_MEASURED:
            paths.append(analyze_task(model, task, loading, normalization, again=again))
    return paths
