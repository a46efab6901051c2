"""`fakeit-eval test`, `probe`, `analyze` and `suite`: evaluate models on data."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from builders.errors import UserError
from fakeit_eval.cli.options import Common, CommonOptions, Data, Models, ProbeOptions, Probing

MAX_NAMED = 20
"""Classes that one line names."""


def test(models: Models, /, data: Data, common: Common = CommonOptions()) -> None:
    """Test models with their own classifiers: top-1, top-5, per class, confusion; writes results/test-….json.

    Args:
        data: Test sets by name (imagenet_val, …; digits or imagenet for all of them), NAME=PATH, or images: a clone,
            class folders, an archive (.tar, .tar.gz, .zip), hub:user/name@split.
    """
    from fakeit_eval.evaluate.classifier import test_classifier
    from fakeit_eval.open_test_sets import open_test_sets

    loading, opened = common.loading(), common.models(models)
    sets = open_test_sets(_require_data(data), common.root, common.policy)
    _print([test_classifier(model, one, loading, again=common.again) for model in opened for one in sets], common)


test.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test


def probe(
    models: Models,
    /,
    data: Data = (),
    train: str = "",
    val: str = "",
    test: str = "",
    features: Path | None = None,
    download: bool = False,
    probing: Probing = ProbeOptions(),
    common: Common = CommonOptions(),
) -> None:
    """Fit new linear classifiers on frozen features, tuned by Optuna; writes results/probe-….json.

    Several processes with the same command share the work. A command that was killed continues when it is run again.

    Args:
        data: Tasks by name (aircraft, …; small, inaturalist, cog or offline for a family), NAME=ROOT, a folder
            that holds train and test, or hub:user/name.
        train: Training images on their own: a clone, class folders, an archive, hub:user/name@split.
        val: Images to tune on; by default a stratified fifth of --train.
        test: Test images.
        features: Features from a file instead of a model: .npz or .safetensors with X_train, y_train, X_test, y_test.
        download: Download what is missing in --root, where torchvision can.
    """
    from builders.image_sets.annotation_files import DataRoot
    from fakeit_eval.evaluate.probe import probe_features, probe_model
    from fakeit_eval.open_tasks import open_own, open_tasks

    loading, settings = common.loading(), probing.settings()
    if features is not None:
        _require_alone("--features", models, data, train, val, test)
        file = _feature_file(features, common)
        _print([probe_features(file, file.splits, settings, loading.cache, again=common.again)], common)
        return
    if bool(train) != bool(test) or (val and not train) or not (data or train):
        raise UserError("a probe needs --data TASK, or --train and --test (and perhaps --val) with images")
    opened = common.models(models)
    tasks = open_tasks(data, DataRoot(root=common.root, download=download), common.policy)
    if train:
        tasks.append(open_own({"train": train, "val": val, "test": test}, common.policy))
    _print([probe_model(m, task, loading, settings, again=common.again) for m in opened for task in tasks], common)


def analyze(
    models: Models,
    /,
    data: Data = (),
    features: Path | None = None,
    normalization: str = "text",
    common: Common = CommonOptions(),
) -> None:
    """Measure features: sparsity, intra-class distance, redundancy, coding length; writes results/analyze-….json.

    Args:
        data: Test sets or tasks by name (all images of a task are measured), or images, as for `test`.
        features: Features from a file instead of a model: .npz or .safetensors with X and y, or with splits, as for
            `probe`.
        normalization: text: all measures on l2-normalized features, as in the paper's section 3.3; caption: only
            the first two, as in the caption of its Fig. 1.
    """
    from builders.image_sets.annotation_files import DataRoot
    from fakeit_eval.analyze import check_normalization
    from fakeit_eval.evaluate.analysis import analyze_features, analyze_task, analyze_test_set
    from fakeit_eval.open_tasks import is_task, open_tasks
    from fakeit_eval.open_test_sets import open_test_sets

    check_normalization(normalization)
    if features is not None:
        _require_alone("--features", models, data)
        file = _feature_file(features, common)
        _print([analyze_features(file, file.splits, normalization, again=common.again)], common)
        return
    loading, opened = common.loading(), common.models(models)
    sets = open_test_sets([spec for spec in _require_data(data) if not is_task(spec)], common.root, common.policy)
    tasks = open_tasks([spec for spec in data if is_task(spec)], DataRoot(root=common.root), common.policy)
    paths = []
    for model in opened:
        paths += [analyze_test_set(model, one, loading, normalization, again=common.again) for one in sets]
        paths += [analyze_task(model, task, loading, normalization, again=common.again) for task in tasks]
    _print(paths, common)


def suite(
    models: Models,
    /,
    suite: str = "digits",
    only: tuple[str, ...] = ("test", "probe", "analyze"),
    normalization: str = "text",
    probing: Probing = ProbeOptions(),
    common: Common = CommonOptions(),
) -> None:
    """Evaluate everything: test sets, transfer tasks, feature analysis, and one report of all.

    Args:
        suite: digits (needs no data), imagenet, or imagenet_cog (both need --root).
        only: Which evaluations to run: test, probe, analyze.
        normalization: For the feature analysis, as for `analyze`.
    """
    from builders.image_sets.annotation_files import DataRoot
    from fakeit_eval.suite import run_suite

    loading, settings, data_root = common.loading(), probing.settings(), DataRoot(root=common.root)
    paths: list[Path] = []
    for model in common.models(models):
        paths += run_suite(suite, model, data_root, loading, settings, normalization, only=only, again=common.again)
    _print(paths, common)


def data(
    clone: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CLONE")],
    /,
    real: str = "",
    against: str = "",
    backbone: str = "dinov2",
    classifier: str = "",
    per_class: bool = False,
    common: Common = CommonOptions(),
) -> None:
    """Measure what a clone is worth: fidelity, coverage, diversity, recognizability, copies; writes results/data-….json.

    Args:
        clone: Directory or URL of the clone, or any images that `test` takes.
        real: Real images to compare with: a clone, class folders, an archive, hub:user/name@split, or a test set by name.
            Without them, only diversity and recognizability are measured.
        against: Another clone of the same keys, such as one with another guidance scale; the result has the difference
            of each measure with an interval from the pairs of images.
        backbone: Network whose features are compared: dinov2 (DINOv2 small, 88 MB, Apache-2.0, downloaded once), pixels
            (no network), or any model as for `probe`.
        classifier: A network trained on real images of the classes, for recognizability: any model as for `test`.
        per_class: Measure each class on its own, too.
    """
    from fakeit_eval.evaluate.dataset import Clone, Reference, default_out, measure_clone
    from fakeit_eval.open_test_sets import open_one

    def opened(spec: str) -> Any:
        return open_one(spec, common.root, common.policy) if spec else None

    def model(spec: str) -> Any:
        return common.models((spec,))[0] if spec else None

    if against and per_class:
        raise UserError("--per-class has no differences; leave out --against, or --per-class")
    reference = Reference(
        real=opened(real), against=opened(against), classifier=model(classifier), is_per_class=per_class
    )
    measured = Clone(images=opened(clone), out=common.out or default_out(clone))
    _print([measure_clone(measured, model(backbone), reference, common.loading(), again=common.again)], common)


def _print(paths: list[Path], common: CommonOptions) -> None:
    from fakeit_eval.reporting.report import render
    from fakeit_eval.reporting.results import read_result

    results = [read_result(path) for path in paths]
    for line in dict.fromkeys(line for result in results for line in _notes(result["data"])):
        print(f"fakeit-eval: {line}", file=sys.stderr)
    print(render(results, common.format))


def _notes(data: dict[str, Any]) -> Iterator[str]:
    """What people should know about the images that a result is based on."""
    if unknown := data.get("unknown_classes"):
        shown = ", ".join(f"'{name}'" for name in unknown[:MAX_NAMED]) + (", …" if len(unknown) > MAX_NAMED else "")
        yield f"{len(unknown)} classes of '{data['path']}' are none of the model's and are left out: {shown}"
    if data.get("cut_files"):
        yield f"{data['cut_files']:,} files of '{data['name']}' end early and are decoded up to their end"
    if data.get("note"):
        yield str(data["note"])


def _feature_file(path: Path, common: CommonOptions) -> Any:
    from fakeit_eval.features.feature_files import read_feature_file

    return read_feature_file(path, common.out)


def _require_data(data: tuple[str, ...]) -> tuple[str, ...]:
    if not data:
        raise UserError("no data to evaluate on; give --data a dataset by name, or images")
    return data


def _require_alone(option: str, *others: Sequence[str]) -> None:
    if any(others):
        raise UserError(f"{option} is evaluated on its own; leave out models and other data")
