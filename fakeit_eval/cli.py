"""fakeit-eval: what a trained backbone is worth. Also `python -m fakeit_eval`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from builders.format.command import told_in_one_sentence
from builders.format.errors import UserError

PROGRAM = "fakeit-eval"
RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
RunPaths = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]


def test(runs: RunPaths, /, data: str, batch_size: int = 256, workers: int = 0) -> None:
    """Test models with their own classifiers: top-1, top-5, per class; writes RUN/results/test-….json.

    Args:
        runs: Run directories of fakeit-train.
        data: Clone of the test images, real or synthetic.
        batch_size: Images per forward.
        workers: Loader processes.
    """
    from builders.format.cache import default_cache
    from builders.format.open_clone import open_clone
    from fakeit_eval.evaluate import test_run

    if not runs:
        raise UserError("no run to test; give at least one run directory of fakeit-train")
    _check_loading(batch_size, workers)
    clone = open_clone(data, default_cache())
    _print_results([test_run(run, clone, batch_size=batch_size, num_workers=workers) for run in runs])


def probe(
    run: RunPath,
    /,
    train: str,
    test: str,
    val: str | None = None,
    trials: int = 30,
    seed: int = 0,
    batch_size: int = 256,
    workers: int = 0,
) -> None:
    """Fit a linear classifier on frozen features (L-BFGS, C tuned by Optuna); writes RUN/results/probe-….json.

    Args:
        run: Run directory of fakeit-train.
        train: Clone of the training images.
        test: Clone of the test images.
        val: Clone of the images C is tuned on; by default a fifth of --train, stratified.
        trials: Trials of the search.
        seed: Seed of the search, and of the drawn val part.
        batch_size: Images per forward.
        workers: Loader processes.
    """
    from builders.format.cache import default_cache
    from builders.format.open_clone import open_clone
    from fakeit_eval.evaluate import probe_run

    if trials < 1:
        raise UserError(f"{trials} trials find nothing; give --trials 1 or more")
    _check_loading(batch_size, workers)
    clones = {
        name: open_clone(root, default_cache())
        for name, root in (("train", train), ("val", val), ("test", test))
        if root
    }
    path = probe_run(run, clones, num_trials=trials, seed=seed, batch_size=batch_size, num_workers=workers)
    _print_results([path])


def analyze(runs: RunPaths, /, data: str, reading: str = "text", batch_size: int = 256, workers: int = 0) -> None:
    """Measure features: sparsity, intra-class distance, redundancy, coding length; writes RUN/results/analyze-….json.

    Args:
        runs: Run directories of fakeit-train.
        data: Clone of the images, real or synthetic.
        reading: text: all four on l2-normalised features, as the paper's section 3.3; caption: the first two, as its Fig. 1.
        batch_size: Images per forward.
        workers: Loader processes.
    """
    from builders.format.cache import default_cache
    from builders.format.open_clone import open_clone
    from fakeit_eval.evaluate import analyze_run

    if not runs:
        raise UserError("no run to analyse; give at least one run directory of fakeit-train")
    _check_loading(batch_size, workers)
    clone = open_clone(data, default_cache())
    _print_results(
        [analyze_run(run, clone, reading=reading, batch_size=batch_size, num_workers=workers) for run in runs]
    )


def report(runs: RunPaths, /) -> None:
    """Print the results of some runs: one table of scores, one of features.

    Args:
        runs: Run directories with results.
    """
    from fakeit_eval.results import find_results

    _print_results(find_results(list(runs)))


def _print_results(paths: list[Path]) -> None:
    from fakeit_eval.report import render_tables
    from fakeit_eval.results import read_result

    print(render_tables([read_result(path) for path in paths]))


def _check_loading(batch_size: int, workers: int) -> None:
    if batch_size < 1 or workers < 0:
        raise UserError(f"--batch-size {batch_size} --workers {workers} load nothing; give at least 1 and 0")


COMMANDS: dict[str, Callable[..., Any]] = {"test": test, "probe": probe, "analyze": analyze, "report": report}


def main() -> None:
    with told_in_one_sentence(PROGRAM, "eval"):
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=__doc__, config=(tyro.conf.DisallowNone,)
        )


if __name__ == "__main__":
    main()
