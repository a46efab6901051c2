"""Fits classifiers on frozen features, for transfer tasks: `fakeit-eval probe`."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.errors import UserError, suggest
from builders.image_sets.base import Labels
from fakeit_eval import ranks
from fakeit_eval.evaluate.cached_result import Score, cached_result, num_cut_files
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.features.rows import Rows
from fakeit_eval.models import Model
from fakeit_eval.open_tasks import OpenedTask
from fakeit_eval.probes.base import probe_names
from fakeit_eval.reporting.intervals import interval
from fakeit_eval.reporting.results import Evaluated, describe_data, describe_features
from fakeit_eval.tasks.base import Task, check_counts, draw_splits

if TYPE_CHECKING:
    from fakeit_eval.probes.base import ProbeData, ProbeScore

SplitFeatures = Mapping[str, tuple[Rows, Labels]]
"""Features (n, d) and labels (n,) of each split: "train", "test" and perhaps "val", or "all"."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    probe: str = ""
    """A module of fakeit_eval/probes; "" means the paper's for the task."""
    trials: int = 30
    """Trials of the hyper-parameter search; the paper runs at least 25."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the search and of random splits; the result is the mean over them."""
    any_count: bool = False
    """Whether splits may have other sizes than the paper's."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"{self.trials} trials find nothing; give --trials 1 or more")
        is_distinct = len(set(self.seeds)) == len(self.seeds) > 0
        if not is_distinct or not 0 <= min(self.seeds) <= max(self.seeds) < 2**32:
            raise UserError(f"--seeds {' '.join(map(str, self.seeds))} should be different numbers from 0 to 2³² - 1")
        if self.probe and self.probe not in probe_names():
            raise UserError(f"unknown probe '{self.probe}'; {suggest(self.probe, probe_names())}")


def probe_model(
    model: Model, opened: OpenedTask, loading: Loading, settings: ProbeSettings, *, again: bool = False
) -> Path:
    """Fits classifiers on a model's features of a task; the path of the result.

    Raises:
        UserError: an image is broken, or a split is too small or has another size than the paper's.
    """
    labels = {split: images.labels for split, images in opened.splits.items()}
    data = describe_data(opened.task.name, list(opened.splits.values()), _check_sizes(opened, labels, settings))
    probing = _Probing(model, opened.task, data, settings, loading.cache / "studies", again)

    def compute() -> Score:
        features = {split: extract(model, images, loading) for split, images in opened.splits.items()}
        found = {split: (features[split], labels[split]) for split in features}
        return probing.score(found, num_cut_files(list(features.values())))

    return probing.result(compute)


def probe_features(
    source: Evaluated, splits: SplitFeatures, settings: ProbeSettings, cache: Path, *, again: bool = False
) -> Path:
    """Fits classifiers on features from a file; the path of the result.

    Raises:
        UserError: a split is too small.
    """
    data = describe_features(source, np.concatenate([labels for _, labels in splits.values()]))
    probing = _Probing(source, Task(name=source.name), data, settings, cache / "studies", again)
    return probing.result(lambda: probing.score(splits))


@dataclass(frozen=True)
class _Probing:
    """One evaluation by a probe."""

    model: Evaluated
    task: Task
    data: dict[str, Any]
    settings: ProbeSettings
    studies: Path
    """Folder of the searches, which continue after an interruption."""
    again: bool

    @property
    def probe(self) -> str:
        return self.settings.probe or self.task.probe

    @property
    def described(self) -> dict[str, Any]:
        return {"probe": self.probe, "trials": self.settings.trials, "seeds": list(self.settings.seeds)}

    def result(self, compute: Any) -> Path:
        return cached_result(self.model, "probe", self.data, self.described, compute, again=self.again)

    def study(self, seed: int) -> Path:
        """Folder of the search with one seed."""
        key = [self.model.sha256, self.data["digest"], self.data.get("state", ""), self.probe, seed]
        return self.studies / hashlib.sha256(json.dumps(key).encode()).hexdigest()

    def score(self, splits: SplitFeatures, num_cut: int = 0) -> Score:
        """Runs the search for each seed, and averages."""
        runs = [self._run(splits, seed) for seed in self.settings.seeds]
        found = {name: np.array([run[name] for run in runs]) for name in ("top1", "mean_per_class")}
        spread = {f"{name}_spread": round(float(v.std(ddof=1)), 4) for name, v in found.items() if len(runs) > 1}
        return Score(
            value=float(found["top1"].mean()),
            unit="% top-1",
            more={
                "mean_per_class": round(float(found["mean_per_class"].mean()), 4),
                **({"interval": runs[0]["interval"]} if len(runs) == 1 else spread),
                "num_images": runs[0]["num_images"],
                "runs": runs,
            },
            num_cut_files=num_cut,
        )

    def _run(self, splits: SplitFeatures, seed: int) -> dict[str, Any]:
        from fakeit_eval.probing.run_probe import run_probe

        if self.again:
            ranks.barrier()
            if not ranks.RANK:
                shutil.rmtree(self.study(seed), ignore_errors=True)
            ranks.barrier()
        data = _draw(self.task, splits, seed)
        score = run_probe(self.probe, data, num_trials=self.settings.trials, seed=seed, study=self.study(seed))
        return _describe_run(seed, score, data)


def _describe_run(seed: int, score: "ProbeScore", data: "ProbeData") -> dict[str, Any]:
    return {
        "seed": seed,
        "top1": round(score.top1, 4),
        "interval": interval(score.num_right, len(data.test[1])),
        "mean_per_class": round(score.mean_per_class, 4),
        "num_images": {split: len(getattr(data, split)[1]) for split in ("train", "val", "test")},
        "parameters": score.parameters,
        "trials": score.trials,
    }


def _draw(task: Task, splits: SplitFeatures, seed: int) -> "ProbeData":
    """Train, val and test, drawn by the task's rules where they are not given."""
    from fakeit_eval.probes.base import ProbeData

    drawn = draw_splits(task, {name: labels for name, (_, labels) in splits.items()}, seed)

    def split(name: str) -> Any:
        ((source, rows),) = drawn[name]
        features, labels = splits[source]
        is_whole = len(rows) == len(labels)
        return np.asarray(features[:] if is_whole else features[rows]), labels[rows]

    return ProbeData(split("train"), split("val"), split("test"))


def _check_sizes(opened: OpenedTask, labels: Mapping[str, Labels], settings: ProbeSettings) -> str:
    """How the sizes of the splits differ from the paper's, in words; "" where they do not.

    Raises:
        UserError: they differ, and `any_count` is not set.
    """
    drawn = draw_splits(opened.task, dict(labels), settings.seeds[0])
    sizes = {split: sum(len(rows) for _, rows in found) for split, found in drawn.items()}
    first = next(iter(opened.splits.values()))
    difference = check_counts(opened.task, sizes, len(first.class_names))
    if difference and not settings.any_count:
        raise UserError(
            f"'{opened.task.name}' in '{first.location}' has {difference}; download it again, or add --any-count "
            "for a result that says so"
        )
    return difference
