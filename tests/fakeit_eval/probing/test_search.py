"""Searches that are stopped and resumed, shared by workers, or broken."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from builders.errors import UserError
from fakeit_eval.probes.base import Parameters, probe_names
from fakeit_eval.probing.run_probe import run_probe
from fakeit_eval.probing.search import NUMBER_KEY, WORKER, Search
from tests.fakeit_eval.probes.blobs import blobs

WORKING = """
import json, os, signal, sys, time
from pathlib import Path
from fakeit_eval.probing.search import Search
from tests.fakeit_eval.probing.test_search import suggest

tried, die_at = [], int(sys.argv[2])

def objective(parameters):
    if len(tried) == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    tried.append(parameters["x"])
    with open(sys.argv[3], "a") as log:
        log.write(json.dumps([os.getpid(), parameters["x"]]) + "\\n")
    time.sleep(0.05)
    return -abs(parameters["x"] - 3)

Search(Path(sys.argv[1]), 12, 0).run(suggest, objective)
"""


def suggest(trial: optuna.Trial) -> Parameters:
    return {"x": trial.suggest_float("x", 0, 10)}


def quick(parameters: Parameters) -> float:
    return -abs(parameters["x"] - 3)


def work(folder: Path, log: Path, die_at: int = -1) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WORKING, str(folder), str(die_at), str(log)])


def read(log: Path) -> list[tuple[int, float]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def test_search__finds_the_maximum_and_is_reproducible(tmp_path: Path) -> None:
    first, second = (Search(tmp_path / name, 20, 0).run(suggest, quick) for name in ("a", "b"))
    assert [trial.params for trial in first] == [trial.params for trial in second]
    assert max(trial.value or -10 for trial in first) > -0.5
    assert Search(tmp_path / "c", 20, 1).run(suggest, quick)[0].params != first[0].params


def test_search__a_killed_search_continues_as_if_uninterrupted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert work(tmp_path / "study", log, die_at=5).wait() == -signal.SIGKILL
    before = read(log)
    assert len(before) == 5
    assert work(tmp_path / "study", log).wait() == 0
    assert read(log)[:5] == before and len(read(log)) == 12
    whole = Search(tmp_path / "whole", 12, 0).run(suggest, quick)
    assert [trial.params["x"] for trial in whole] == [x for _, x in read(log)]


def test_search__two_workers_share_a_search_without_repeating_a_trial(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [work(tmp_path / "study", log) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    tried = read(log)
    assert len(tried) == 12 and len({x for _, x in tried}) == 12
    assert len({pid for pid, _ in tried}) == 2


def test_search__a_worker_takes_over_from_a_dead_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    dying, living = work(tmp_path / "study", log, die_at=2), work(tmp_path / "study", log)
    assert (dying.wait(), living.wait()) == (-signal.SIGKILL, 0)
    trials = Search(tmp_path / "study", 12, 0).run(suggest, quick)
    assert [trial.user_attrs[NUMBER_KEY] for trial in trials] == list(range(12))
    assert len(read(log)) == 12


def test_search__a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    Search(tmp_path, 3, 0).run(suggest, quick)
    with (tmp_path / "trials.log").open("a") as journal:
        journal.write('{"op_code": 5, "worker')
    assert len(Search(tmp_path, 5, 0).run(suggest, quick)) == 5


def test_search__a_broken_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.log").write_text("not json\n" * 3)
    with pytest.raises(UserError, match="cannot be read"):
        Search(tmp_path, 3, 0).run(suggest, quick)


def test_search__more_trials_extend_a_finished_search(tmp_path: Path) -> None:
    few = Search(tmp_path, 3, 0).run(suggest, quick)
    more = Search(tmp_path, 6, 0).run(suggest, quick)
    assert [trial.params for trial in more][:3] == [trial.params for trial in few]
    assert all(trial.user_attrs[WORKER] for trial in more)


@pytest.mark.parametrize("name", probe_names())
def test_probe__each_probe_learns_from_blobs_and_not_from_noise(name: str, tmp_path: Path) -> None:
    score = run_probe(name, blobs(), num_trials=4, seed=0, study=tmp_path / "blobs")
    assert 80 < score.top1 < 100 and abs(score.top1 - score.mean_per_class) < 1
    best = max(
        score.trials, key=lambda trial: (trial["top1"] if trial["state"] == "complete" else -1, -trial["number"])
    )
    assert {parameter: best[parameter] for parameter in score.parameters} == score.parameters
    assert run_probe(name, blobs(noise=100.0), num_trials=3, seed=0, study=tmp_path / "noise").top1 < 45


def test_probe__an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown probe 'svm'; choose from .*logistic_regression"):
        run_probe("svm", blobs(), num_trials=3, seed=0, study=tmp_path)


def test_search__the_number_of_a_failed_trial_is_used_again(tmp_path: Path) -> None:
    def fails(parameters: Parameters) -> float:
        raise MemoryError

    with pytest.raises(MemoryError):
        Search(tmp_path, 3, 0).run(suggest, fails)
    assert [trial.user_attrs[NUMBER_KEY] for trial in Search(tmp_path, 3, 0).run(suggest, quick)] == [0, 1, 2]


def test_search__optunas_lock_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's lock is a symbolic link to the journal; Optuna never takes over a link whose target does not exist."""
    monkeypatch.chdir(tmp_path)
    Search(Path("study"), 1, 0).run(suggest, quick)
    paths: list[str] = []

    class Recorded(JournalFileSymlinkLock):  # type: ignore[misc]
        def __init__(self, path: str) -> None:
            paths.append(path)
            super().__init__(path)

    monkeypatch.setattr("fakeit_eval.probing.search.JournalFileSymlinkLock", Recorded)
    Search(Path("study"), 2, 0).run(suggest, quick)
    assert paths and all(Path(path).is_absolute() for path in paths)


def test_search__each_candidate_is_finished_once_after_a_failure(tmp_path: Path) -> None:
    def fails_once(parameters: Parameters) -> float:
        if parameters["x"] == 2 and not failed:
            failed.append(1)
            raise MemoryError
        return quick(parameters)

    failed: list[int] = []
    search = Search(tmp_path, 4, 0, candidates=tuple({"x": float(x)} for x in range(4)))
    with pytest.raises(MemoryError):
        search.run(suggest, fails_once)
    trials = search.run(suggest, fails_once)
    assert [trial.params["x"] for trial in trials] == [0.0, 1.0, 2.0, 3.0]
