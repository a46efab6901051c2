"""Searches a probe's hyper-parameters by Optuna's TPE.

A search can be resumed, and shared by workers on several machines. Optuna keeps the trials in a journal file. Trial i
is sampled with a seed derived from (search seed, i), so a resumed search proposes the same trials as an uninterrupted
one, given equal scores. Each worker holds a file lock as long as it runs: a trial whose worker is gone is marked as
failed, and another trial gets its number i."""

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

WORKER, NUMBER_KEY = "worker", "number"
"""Keys of a trial's attributes in the journal: the worker that runs it, and its number i."""
SECONDS_BETWEEN_LOOKS = 0.2
Objective = Callable[[Parameters], float]


@dataclass(frozen=True)
class Search:
    """A search that is kept in a folder: `trials.log`, and the locks of its workers."""

    folder: Path
    num_trials: int
    """Number of trials to finish; failed ones do not count."""
    seed: int
    sampler: Mapping[str, bool] = field(default_factory=dict)
    """Options of Optuna's TPESampler."""
    candidates: tuple[Parameters, ...] = ()
    """Hyper-parameters of trial i, for a probe with a fixed list of candidates; () lets TPE propose them."""

    def run(self, suggest: Callable[[optuna.Trial], Parameters], objective: Objective) -> list[FrozenTrial]:
        """Runs trials until `num_trials` are finished by this or other workers.

        Args:
            suggest: Proposes the hyper-parameters of a trial.
            objective: Returns their score; higher is better.

        Returns:
            The finished trials, in the order of their numbers i.

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
                    else:  # other workers run the last trials; if one dies, this worker repeats its trial
                        time.sleep(SECONDS_BETWEEN_LOOKS)
                    bar.update(sum(t.state == TrialState.COMPLETE for t in study.get_trials(deepcopy=False)) - bar.n)
        trials = sorted(
            (trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE),
            key=lambda trial: trial.user_attrs[NUMBER_KEY],
        )
        return trials[: self.num_trials]

    def _study(self) -> optuna.Study:
        # Optuna's lock is a symbolic link to the journal; a relative path would be resolved in the wrong folder.
        path = self.folder.resolve() / "trials.log"
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
                f"the search in '{self.folder}' cannot be read ({error}); remove the folder, and run the probe again"
            ) from None

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        with warnings.catch_warnings():
            # `multivariate` has been experimental since 2020.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4], "little"), constant_liar=True, **self.sampler
            )

    def _next(self, study: optuna.Study, worker: str) -> "optuna.Trial | bool | None":
        """A new trial; False while other workers run the last ones; None once all are finished."""
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
                # PartialFixedSampler has been experimental since 2021.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.sampler = optuna.samplers.PartialFixedSampler(self.candidates[number], study.sampler)
        trial = study.ask()
        trial.set_user_attr(WORKER, worker)
        trial.set_user_attr(NUMBER_KEY, number)
        return trial

    @contextlib.contextmanager
    def _worker(self) -> Iterator[str]:
        """Yields this worker's name, and holds its lock; the operating system releases the lock if the process dies."""
        name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        lock = filelock.FileLock(self._lock(name))
        with lock:
            yield name
        self._lock(name).unlink(missing_ok=True)

    def _lock(self, worker: str) -> Path:
        return self.folder / f"worker-{worker}.lock"

    def _is_alive(self, trial: FrozenTrial, ours: str) -> bool:
        """Whether another worker still runs a trial and holds its lock; our own earlier trials do not run any more."""
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
    """Drops the last line of the journal if its writer was killed within it; later lines would become unreadable."""
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
    """Number, state, hyper-parameters and top-1 on val, in percent, of each trial, for the result file."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            **trial.params,
            "top1": round(float(trial.value or 0.0), 4),
        }
        for trial in trials
    ]
