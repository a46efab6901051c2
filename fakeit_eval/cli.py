"""fakeit-eval: what a trained backbone is worth. Also `python -m fakeit_eval`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from builders.format.command import told_in_one_sentence

PROGRAM = "fakeit-eval"
RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
RunPaths = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]


def test(runs: RunPaths, /, data: str, batch_size: int = 256, workers: int = 0) -> None:
    """Test models with their own classifiers: top-1, top-5, per class; writes RUN/results/test-<data>.json.

    Args:
        runs: Run directories of fakeit-train.
        data: Clone of the test images, real or synthetic.
        batch_size: Images per forward.
        workers: Loader processes.
    """
    from builders.format.backbone import load_backbone
    from builders.format.errors import UserError
    from builders.format.open_clone import open_clone
    from fakeit_eval.features import extract
    from fakeit_eval.report import render_table
    from fakeit_eval.results import describe_data, read_results, write_result
    from fakeit_eval.tasks.classify import classify

    if not runs:
        raise UserError("no run to test; give at least one run directory of fakeit-train")
    _check_loading(batch_size, workers)
    clone = open_clone(data)
    described = describe_data(clone)
    for run in runs:
        backbone, network = load_backbone(run)
        found = extract(network, backbone, clone, batch_size=batch_size, num_workers=workers)
        score = classify(found.logits, found.labels, clone.manifest.label_names, list(backbone.classes))
        write_result(
            run,
            backbone=backbone,
            task="test",
            value=score.top1,
            unit="% top-1",
            data=described,
            settings={"batch_size": batch_size, "input_size": backbone.input_size},
            top5=round(score.top5, 4),
            per_class=score.per_class,
        )
    print(render_table([result for result in read_results(list(runs)) if result["task"] == "test"]))


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
    """Fit a linear classifier on frozen features (L-BFGS, C tuned by Optuna); writes RUN/results/probe-<data>.json.

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
    from builders.format.backbone import load_backbone
    from builders.format.errors import UserError
    from builders.format.open_clone import open_clone
    from fakeit_eval.features import extract
    from fakeit_eval.probes.logistic_regression import draw_validation
    from fakeit_eval.probes.logistic_regression import probe as fit_probe
    from fakeit_eval.report import render_table
    from fakeit_eval.results import describe_data, read_results, write_result

    if trials < 1:
        raise UserError(f"{trials} trials find nothing; give --trials 1 or more")
    _check_loading(batch_size, workers)
    backbone, network = load_backbone(run)
    clones = {name: open_clone(root) for name, root in (("train", train), ("val", val), ("test", test)) if root}
    for name, clone in clones.items():
        if clone.manifest.label_names != clones["train"].manifest.label_names:
            raise UserError(f"--{name} '{clone.root}' has other classes than --train '{train}'; give parts of one set")
    parts = {}
    for name, clone in clones.items():
        found = extract(network, backbone, clone, batch_size=batch_size, num_workers=workers)
        parts[name] = (found.features, found.labels)
    if "val" not in parts:
        parts["train"], parts["val"] = draw_validation(*parts["train"], share=0.2, seed=seed)
    score = fit_probe(parts["train"], parts["val"], parts["test"], num_trials=trials, seed=seed)
    described = describe_data(clones["test"])
    write_result(
        run,
        backbone=backbone,
        task="probe",
        value=score.top1,
        unit="% top-1",
        data=described,
        settings={
            **{name: describe_data(clone) for name, clone in clones.items() if name != "test"},
            "trials": trials,
            "seed": seed,
        },
        parameters=score.parameters,
        mean_per_class=round(score.mean_per_class, 4),
        trials=score.trials,
    )
    print(render_table([result for result in read_results([run]) if result["task"] == "probe"]))


def _check_loading(batch_size: int, workers: int) -> None:
    from builders.format.errors import UserError

    if batch_size < 1 or workers < 0:
        raise UserError(f"--batch-size {batch_size} --workers {workers} load nothing; give at least 1 and 0")


def report(runs: RunPaths, /) -> None:
    """Print one table of all results of some runs.

    Args:
        runs: Run directories with results.
    """
    from fakeit_eval.report import render_table
    from fakeit_eval.results import read_results

    print(render_table(read_results(list(runs))))


COMMANDS: dict[str, Callable[..., Any]] = {"test": test, "probe": probe, "report": report}


def main() -> None:
    with told_in_one_sentence(PROGRAM, "eval"):
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=__doc__, config=(tyro.conf.DisallowNone,)
        )


if __name__ == "__main__":
    main()
