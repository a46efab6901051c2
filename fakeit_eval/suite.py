"""A whole evaluation of one backbone: its test sets, transfer tasks and feature analysis; `fakeit-eval suite`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builders.format.errors import UserError
from fakeit_eval.analysis.analyse import check_reading
from fakeit_eval.backbones import Subject
from fakeit_eval.evaluate import ProbeSettings, analyze_task, analyze_test_set, probe_subject, test_subject
from fakeit_eval.features import Loading
from fakeit_eval.tasks.open_tasks import open_tasks
from fakeit_eval.tasks.readers import Place
from fakeit_eval.test_sets.open_sets import open_test_sets


@dataclass(frozen=True)
class Suite:
    test_sets: tuple[str, ...]
    tasks: tuple[str, ...]


SUITES = {
    "digits": Suite(("digits",), ("offline",)),
    "imagenet": Suite(("imagenet",), ("small", "inaturalist")),
    "imagenet_cog": Suite(("imagenet",), ("small", "inaturalist", "cog")),
}
EVALUATIONS = ("test", "probe", "analyze")
NOT_MEASURED = ("cog",)
"""Groups of tasks that the paper's feature analysis leaves out (supplementary, section 3.3)."""


def run_suite(
    name: str,
    subject: Subject,
    place: Place,
    loading: Loading,
    settings: ProbeSettings,
    reading: str,
    *,
    only: Sequence[str] = EVALUATIONS,
    again: bool,
) -> list[Path]:
    """All results of a suite, or of some of its evaluations; those that are there already are not made again.

    Raises:
        UserError: no such suite, or a data set is not there.
    """
    if name not in SUITES:
        raise UserError(f"unknown suite '{name}'; choose from {', '.join(SUITES)}")
    for evaluation in only:
        if evaluation not in EVALUATIONS:
            raise UserError(f"unknown evaluation '{evaluation}'; choose from {', '.join(EVALUATIONS)}")
    check_reading(reading)
    suite = SUITES[name]
    paths = []
    needs_tasks = "probe" in only or "analyze" in only
    tasks = open_tasks(suite.tasks, place) if needs_tasks else []
    for opened in open_test_sets(suite.test_sets, place.root):
        if "test" in only and subject.backbone.classes:  # an encoder alone has nothing to test
            paths.append(test_subject(subject, opened, loading, again=again))
        if "analyze" in only:
            paths.append(analyze_test_set(subject, opened, loading, reading, again=again))
    for task in tasks:
        if "probe" in only:
            paths.append(probe_subject(subject, task, loading, settings, again=again))
        if "analyze" in only and task.task.group not in NOT_MEASURED:
            paths.append(analyze_task(subject, task, loading, reading, again=again))
    return paths
