"""From a run and clones to a result file: what `fakeit-eval test`, `probe` and `analyze` do, callable from Python."""

from pathlib import Path

from builders.format.backbone import load_backbone
from builders.format.errors import UserError
from builders.format.open_clone import Clone
from fakeit_eval.analysis.analyse import analyse
from fakeit_eval.features import extract
from fakeit_eval.probes.logistic_regression import draw_validation, probe
from fakeit_eval.results import describe_data, write_result
from fakeit_eval.tasks.classify import classify

VALIDATION_SHARE = 0.2
"""Of a training set without a val split."""


def test_run(run: Path, clone: Clone, *, batch_size: int, num_workers: int) -> Path:
    """Tests a run's own classifier on a clone; the path of the result.

    Raises:
        UserError: the run has no backbone, the clone is broken, or it has classes that the model does not know.
    """
    backbone, network = load_backbone(run)
    found = extract(network, backbone, clone, batch_size=batch_size, num_workers=num_workers)
    score = classify(found.logits, found.labels, clone.manifest.label_names, list(backbone.classes))
    return write_result(
        run,
        backbone=backbone,
        task="test",
        value=score.top1,
        unit="% top-1",
        data=describe_data(clone),
        settings={"batch_size": batch_size, "input_size": backbone.input_size},
        top5=round(score.top5, 4),
        per_class=score.per_class,
    )


def analyze_run(run: Path, clone: Clone, *, reading: str, batch_size: int, num_workers: int) -> Path:
    """Measures a run's features of a clone; the result's value is the coding length, all four are in `measures`.

    Raises:
        UserError: the run has no backbone, the clone is broken, or there is no such reading.
    """
    backbone, network = load_backbone(run)
    found = extract(network, backbone, clone, batch_size=batch_size, num_workers=num_workers)
    measures = analyse(found.features, found.labels, reading)
    return write_result(
        run,
        backbone=backbone,
        task="analyze",
        value=measures["coding_length"],
        unit="nats",
        data=describe_data(clone),
        settings={"reading": reading, "input_size": backbone.input_size},
        measures=measures,
    )


def probe_run(
    run: Path, clones: dict[str, Clone], *, num_trials: int, seed: int, batch_size: int, num_workers: int
) -> Path:
    """Fits a linear classifier on a run's frozen features; `clones` are train, test and perhaps val.

    Raises:
        UserError: the run has no backbone, a clone is broken, or the clones' classes differ.
    """
    for name, clone in clones.items():
        if clone.manifest.label_names != clones["train"].manifest.label_names:
            raise UserError(
                f"--{name} '{clone.root}' has other classes than --train '{clones['train'].root}'; give parts of one set"
            )
    backbone, network = load_backbone(run)
    parts = {}
    for name, clone in clones.items():
        found = extract(network, backbone, clone, batch_size=batch_size, num_workers=num_workers)
        parts[name] = (found.features, found.labels)
    if "val" not in parts:
        parts["train"], parts["val"] = draw_validation(*parts["train"], share=VALIDATION_SHARE, seed=seed)
    score = probe(parts["train"], parts["val"], parts["test"], num_trials=num_trials, seed=seed)
    learned_from = {name: describe_data(clone) for name, clone in clones.items() if name != "test"}
    return write_result(
        run,
        backbone=backbone,
        task="probe",
        value=score.top1,
        unit="% top-1",
        data=describe_data(clones["test"]),
        settings={**learned_from, "num_trials": num_trials, "seed": seed},
        mean_per_class=round(score.mean_per_class, 4),
        parameters=score.parameters,
        trials=score.trials,
    )
