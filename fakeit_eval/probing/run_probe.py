"""Runs a probe: searches its hyper-parameters, fits it again with the best ones, and tests it once."""

import importlib
from pathlib import Path

import numpy as np

from builders.errors import UserError, suggest
from fakeit_eval.probes.base import ProbeData, ProbeScore, probe_names, top1
from fakeit_eval.probing.search import Search, described


def run_probe(name: str, data: ProbeData, *, num_trials: int, seed: int, study: Path) -> ProbeScore:
    """Tunes a probe on train -> val, fits it again on both, and evaluates it once on the test split.

    Args:
        name: One of `probe_names()`.
        num_trials: Trials of the search. A probe with a fixed list of candidates tries exactly those.
        seed: Seed of the search, and of the probe's own random numbers.
        study: Folder of the search; an existing search continues.

    Raises:
        UserError: the probe is unknown, or the splits do not fit each other.
    """
    if name not in probe_names():
        raise UserError(f"unknown probe '{name}'; {suggest(name, probe_names())}")
    _check(data)
    module = importlib.import_module(f"fakeit_eval.probes.{name}")
    candidates = getattr(module, "CANDIDATES", ())
    num_trials = len(candidates) or num_trials
    search = Search(study, num_trials, seed, getattr(module, "SAMPLER", {}), candidates)
    trials = search.run(module.suggest, module.open_tuning(data, seed))
    best = max(trials, key=lambda trial: (trial.value or 0.0, -trial.number)).params
    predicted = module.open_final(data, seed)(best)
    labels = data.test[1]
    hits = predicted == labels
    return ProbeScore(
        top1=top1(predicted, labels),
        mean_per_class=100 * float(np.mean([hits[labels == label].mean() for label in np.unique(labels)])),
        num_right=int(hits.sum()),
        parameters=dict(best),
        trials=described(trials),
    )


def _check(data: ProbeData) -> None:
    sizes = {split[0].shape[1] for split in (data.train, data.val, data.test)}
    if len(sizes) > 1:
        raise UserError(f"train, val and test have features of {sorted(sizes)} dimensions; extract them with one model")
    if not all(np.isfinite(split[0]).all() for split in (data.train, data.val, data.test)):
        raise UserError("some features are NaN or infinite; check the model that they are extracted with")
    if len(np.unique(data.train[1])) < 2:
        raise UserError("the train split has a single class; give one with two classes or more")
