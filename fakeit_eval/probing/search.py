"""The search for a probe's parameters: Optuna's TPE, in a journal file, so that a study that was stopped goes on, and that
several workers, on one machine or many, share one.

Every trial has a place in the study, and its random numbers follow from the study's seed and that place; so a study that is
stopped and goes on tries what it would have tried, as far as its scores are the same. Whoever works holds a lock for as long
as it lives: a trial whose worker is gone is marked as failed, and another one takes its place.
"""

import contextlib
import hashlib
import itertools
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from builders.command_line.progress import progress
from builders.errors import UserError
from fakeit_eval.probes.base import Parameters

WORKER, NUMBER_KEY = "worker", "place"
SECONDS_BETWEEN_LOOKS = 0.2
Objective = Callable[[Parameters], float]


@dataclass(frozen=True)
class Search:
    """A study in a folder: `journal.log`, and locks beside it."""

    folder: Path
    num_trials: int
    """Finished ones."""
    seed: int
    sampler: Mapping[str, bool] = field(default_factory=dict)
    """Options of TPE."""
    candidates: tuple[Parameters, ...] = ()
    """What to try, one at each place, where there are only so many; () leaves it to TPE."""

    def run(self, suggest: Callable[[optuna.Trial], Parameters], objective: Objective) -> list[FrozenTrial]:
        """Tries until `num_trials` are finished, by whomever; all finished trials.

        Raises:
            UserError: the journal is broken.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._worker() as worker:
            study = self._study()
            with progress(self.num_trials, desc="search", unit="trial", leave=False) as bar:
                while (trial := self._next(study, worker)) is not None:
                    if trial:
                        study.tell(trial, objective(suggest(trial)))
                    else:  # others are at the last ones; should they die, somebody has to take over
                        time.sleep(SECONDS_BETWEEN_LOOKS)
                    bar.update(sum(t.state == TrialState.COMPLETE for t in study.get_trials(deepcopy=False)) - bar.n)
        trials = sorted(
            (trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE),
            key=lambda trial: trial.user_attrs[NUMBER_KEY],
        )
        return trials[: self.num_trials]

    def _study(self) -> optuna.Study:
        path = self.folder.resolve() / "journal.log"  # Optuna's lock is a link to it, which has to lead there
        lock = JournalFileSymlinkLock(str(path))
        try:
            _drop_torn_line(path, lock)
            storage = JournalStorage(JournalFileBackend(str(path), lock))
            return optuna.create_study(
                storage=storage,
                study_name="probe",
                direction="maximize",
                load_if_exists=True,
                sampler=self._sampler(0),
            )
        except (ValueError, KeyError, OSError) as error:
            raise UserError(
                f"the study in '{self.folder}' cannot be read ({error}); remove it, and search again"
            ) from None

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `multivariate` has been since 2020
            return optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4], "little"), constant_liar=True, **self.sampler
            )

    def _next(self, study: optuna.Study, worker: str) -> "optuna.Trial | bool | None":
        """A new trial; False where others work on the last ones; None where all are finished."""
        with filelock.FileLock(self.folder / "asking.lock"):
            trials = study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            for trial in running:
                if not self._is_alive(trial, worker):
                    study.tell(trial.number, state=TrialState.FAIL)
            done = {trial.user_attrs[NUMBER_KEY] for trial in trials if trial.state == TrialState.COMPLETE}
            taken = {
                t.user_attrs[NUMBER_KEY] for t in running if self._is_alive(t, worker) and NUMBER_KEY in t.user_attrs
            }
            number = next(number for number in itertools.count() if number not in done | taken)
            if number < self.num_trials:
                return self._ask(study, number, worker)
            return False if taken - done else None

    def _ask(self, study: optuna.Study, number: int, worker: str) -> optuna.Trial:
        study.sampler = self._sampler(number)
        if self.candidates:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # has been since 2021
                study.sampler = optuna.samplers.PartialFixedSampler(self.candidates[number], study.sampler)
        trial = study.ask()
        trial.set_user_attr(WORKER, worker)
        trial.set_user_attr(NUMBER_KEY, number)
        return trial

    @contextlib.contextmanager
    def _worker(self) -> Iterator[str]:
        """A name with a lock, which the system lets go of when its holder dies."""
        name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        lock = filelock.FileLock(self._lock(name))
        with lock:
            yield name
        self._lock(name).unlink(missing_ok=True)

    def _lock(self, worker: str) -> Path:
        return self.folder / f"worker-{worker}.lock"

    def _is_alive(self, trial: FrozenTrial, ours: str) -> bool:
        """Whether whoever began a trial still holds its lock; our own earlier trials are none that run."""
        worker = str(trial.user_attrs.get(WORKER, ""))
        if worker == ours or not worker or not self._lock(worker).exists():
            return False
        try:
            with filelock.FileLock(self._lock(worker), timeout=0):
                pass
        except filelock.Timeout:
            return True
        self._lock(worker).unlink(missing_ok=True)
        return False


def _drop_torn_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Of a journal whose writer was killed in the middle of a line, which would make all that follows unreadable."""
    if not path.exists():
        return
    lock.acquire()
    try:
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


def described(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    """Of each trial its number, state, parameters and top-1 on val."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            **trial.params,
            "top1": round(float(trial.value or 0.0), 4),
        }
        for trial in trials
    ]
