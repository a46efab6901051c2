"""fakeit-eval: what a trained backbone is worth. Also `python -m fakeit_eval`.

Features, searches and results are kept: the same command again reads them.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from builders.command_line.report_errors import report_errors
from builders.errors import UserError

if TYPE_CHECKING:
    from fakeit_eval.evaluate import ProbeSettings
    from fakeit_eval.features.extract import Loading
    from fakeit_eval.models import Model

PROGRAM = "fakeit-eval"
MAX_NAMED = 20
"""Classes that a line names."""
MODEL_HELP = "Run directories of fakeit-train, torchvision/NAME[@WEIGHTS], timm/NAME[@WEIGHTS], or state dicts (.pth, .safetensors)."
Models = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL", help=MODEL_HELP)]
RunPaths = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
StudyName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
OutputPath = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]
Data = Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA …")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What `test`, `probe`, `analyze` and `suite` share."""

    root: str = ""
    """Directory of the published data sets, as docs/evaluation.md lays them out."""
    out: Path | None = None
    """Folder whose results/ is written to; by default the run itself, or evaluations/<name>."""
    arch: str = "torchvision/resnet50"
    """Network of a state dict in a file."""
    head: str = "linear"
    """Classifier of a state dict in a file: linear or cosine."""
    temperature: float = 0.1
    """Of a cosine classifier; the cosine is divided by it."""
    as_published: bool = False
    """Read all images as benchmarks' authors do: not turned by EXIF, cut files as far as they go. Sets by name are anyway."""
    as_seen: bool = False
    """Read all images as a viewer shows them: upright, transparent ones over white. Pictures of one's own are anyway."""
    batch_size: int = 256
    """Images per forward."""
    workers: int = 0
    """Loader processes."""
    cache: Path | None = None
    """Where features and searches are kept; by default $FAKEIT_CACHE or ~/.cache/fakeit."""
    again: bool = False
    """Evaluate again what has a result already."""
    format: str = "markdown"
    """Of the table that is printed: markdown, terminal, csv or latex."""

    def __post_init__(self) -> None:
        from fakeit_eval.reporting.report import check_format

        check_format(self.format)
        if self.as_published and self.as_seen:
            raise UserError("--as-published and --as-seen exclude each other; give one of them")

    @property
    def policy(self) -> str:
        """How all images are read; "" leaves it to each set."""
        from builders.images.read import AS_PUBLISHED, AS_SEEN

        return AS_PUBLISHED if self.as_published else AS_SEEN if self.as_seen else ""

    def loading(self) -> "Loading":
        from fakeit_eval.features.extract import Loading

        folder = {"cache": self.cache} if self.cache else {}
        return Loading(batch_size=self.batch_size, workers=self.workers, **folder)

    def models(self, specs: tuple[str, ...]) -> "list[Model]":
        """Those that were named; each with a folder of its own below --out where there are several."""
        from fakeit_eval.models import FileNetwork, open_model
        from fakeit_eval.reporting.results import as_file_name

        if not specs:
            raise UserError(
                "no run to evaluate; give at least one run directory, torchvision/NAME, timm/NAME or a state dict"
            )
        outs = (
            [self.out] if len(specs) == 1 else [self.out / as_file_name(spec) if self.out else None for spec in specs]
        )
        network = FileNetwork(arch=self.arch, head=self.head, temperature=self.temperature)
        return [open_model(spec, out, network) for spec, out in zip(specs, outs, strict=True)]


CommonOptions = Annotated[Common, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How classifiers are fitted."""

    probe: str = ""
    """logistic_regression, sgd or k_nearest_neighbors; by default the paper's for the task."""
    trials: int = 30
    """Trials of the search for the classifier's parameters."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the search, and of the parts that are drawn; the result is their mean."""
    any_count: bool = False
    """Take parts of other sizes than the paper's; the result says so."""

    def settings(self) -> "ProbeSettings":
        from fakeit_eval.evaluate import ProbeSettings

        return ProbeSettings(**vars(self))


ProbingOptions = Annotated[Probing, tyro.conf.arg(name="")]


def test(models: Models, /, data: Data, common: CommonOptions = Common()) -> None:
    """Test networks with their own classifiers: top-1, top-5, per class, confusion; writes results/test-….json.

    Args:
        data: Sets by name (imagenet_val, …; digits or imagenet for all of them), NAME=PLACE, or pictures: a clone, class
            folders, an archive (.tar, .tar.gz, .zip), hub:user/name@split.
    """
    from fakeit_eval.evaluate import classify_model
    from fakeit_eval.open_test_sets import open_test_sets

    loading, opened = common.loading(), common.models(models)
    sets = open_test_sets(_given(data), common.root, common.policy)
    _print([classify_model(model, one, loading, again=common.again) for model in opened for one in sets], common)


def probe(
    models: Models,
    /,
    data: Data = (),
    train: str = "",
    val: str = "",
    test: str = "",
    features: Path | None = None,
    download: bool = False,
    probing: ProbingOptions = Probing(),
    common: CommonOptions = Common(),
) -> None:
    """Fit new linear classifiers on frozen features, tuned by Optuna; writes results/probe-….json.

    Several processes with the same command share the work. Killed, the command goes on when it is run again.

    Args:
        data: Tasks by name (aircraft, …; small, inaturalist, cog or offline for groups), NAME=ROOT, a folder with train and
            test in it, or hub:user/name.
        train: Training images by themselves: a clone, class folders, an archive, hub:user/name@split.
        val: Images to tune on; by default a fifth of --train, stratified.
        test: Test images.
        features: Ready features instead of a network's: .npz or .safetensors with X_train, y_train, X_test, y_test.
        download: Download what is missing in --root, where torchvision can.
    """
    from fakeit_eval.evaluate import probe_features, probe_model
    from fakeit_eval.image_sets.annotation_files import DataRoot
    from fakeit_eval.open_tasks import open_own, open_tasks

    loading, settings = common.loading(), probing.settings()
    if features is not None:
        _alone("--features", models, data, train, val, test)
        file = _feature_file(features, common)
        _print([probe_features(file, file.splits, settings, loading.cache, again=common.again)], common)
        return
    if bool(train) != bool(test) or (val and not train) or not (data or train):
        raise UserError("a probe needs --data TASK, or --train and --test (and perhaps --val) with pictures")
    opened = common.models(models)
    tasks = open_tasks(data, DataRoot(root=common.root, download=download), common.policy)
    if train:
        tasks.append(open_own({"train": train, "val": val, "test": test}, common.policy))
    _print([probe_model(s, task, loading, settings, again=common.again) for s in opened for task in tasks], common)


def analyze(
    models: Models,
    /,
    data: Data = (),
    features: Path | None = None,
    normalization: str = "text",
    common: CommonOptions = Common(),
) -> None:
    """Measure features: sparsity, intra-class distance, redundancy, coding length; writes results/analyze-….json.

    Args:
        data: Test sets or tasks by name (of tasks all images are measured), or pictures, as for `test`.
        features: Ready features instead of a network's: .npz or .safetensors with X and y, or by parts, as for `probe`.
        reading: text: all four on l2-normalised features, as the paper's section 3.3; caption: the first two, as its Fig. 1.
    """
    from fakeit_eval.analyze import check_normalization
    from fakeit_eval.evaluate import analyze_features, analyze_task, analyze_test_set
    from fakeit_eval.image_sets.annotation_files import DataRoot
    from fakeit_eval.open_tasks import is_task, open_tasks
    from fakeit_eval.open_test_sets import open_test_sets

    check_normalization(normalization)
    if features is not None:
        _alone("--features", models, data)
        file = _feature_file(features, common)
        _print([analyze_features(file, file.splits, normalization, again=common.again)], common)
        return
    loading, opened = common.loading(), common.models(models)
    sets = open_test_sets([spec for spec in _given(data) if not is_task(spec)], common.root, common.policy)
    tasks = open_tasks([spec for spec in data if is_task(spec)], DataRoot(root=common.root), common.policy)
    _print(
        [
            path
            for model in opened
            for path in (
                *(analyze_test_set(model, one, loading, normalization, again=common.again) for one in sets),
                *(analyze_task(model, task, loading, normalization, again=common.again) for task in tasks),
            )
        ],
        common,
    )


def suite(
    models: Models,
    /,
    suite: str = "digits",
    only: tuple[str, ...] = ("test", "probe", "analyze"),
    normalization: str = "text",
    probing: ProbingOptions = Probing(),
    common: CommonOptions = Common(),
) -> None:
    """Evaluate whole: test sets, transfer tasks, feature analysis, and one report of all.

    Args:
        suite: digits (needs no data), imagenet, or imagenet_cog (with --root).
        only: Which evaluations: test, probe, analyze.
        reading: Of the feature analysis, as for `analyze`.
    """
    from fakeit_eval.image_sets.annotation_files import DataRoot
    from fakeit_eval.suite import run_suite

    loading, settings, data_root = common.loading(), probing.settings(), DataRoot(root=common.root)
    _print(
        [
            path
            for model in common.models(models)
            for path in run_suite(
                suite, model, data_root, loading, settings, normalization, only=only, again=common.again
            )
        ],
        common,
    )


def study(
    name: StudyName,
    /,
    base: str = "digits",
    values: tuple[str, ...] = (),
    out: Path = Path("studies"),
    seeds: tuple[int, ...] = (0, 1, 2),
    fixed: str = "",
    real: str = "",
    root: str = "",
    share: str = "1/1",
    jobs: int = 1,
    trials: int = 30,
    guidance: float = 0.0,
) -> None:
    """Run one of the paper's studies: make, train and evaluate for every value, then a table, a page and a figure.

    Finished pieces are used again; a study that was stopped goes on when it is run again.

    Args:
        name: guidance, steps, size, prompts, augmentation, features, or card.
        base: What it is run on: digits, imagenet_100 or imagenet_1k.
        values: What is varied; by default the study's own values.
        out: Folder of clones, runs and results; studies that share it share their pieces.
        seeds: Training seeds, all on one clone for each value.
        fixed: What stays the same over data set sizes: iterations or epochs; the paper does not tell.
        real: Class folders of the real training images, or a clone's URL; digits have theirs.
        root: Directory of the published data sets, as docs/evaluation.md lays them out.
        share: This machine's share i/n of the runs; the last one to finish gathers.
        jobs: Runs side by side.
        trials: Trials of each probe's search.
        guidance: Guidance scale of the card's synthetic images; by default 7.5. The paper does not say.
    """
    from fakeit_eval.studies.base import Options
    from fakeit_eval.study import Setting, parse_share, run_study

    options = Options(seeds=seeds, fixed=fixed, real=real, guidance=guidance)
    setting = Setting(out=out, root=root, share=parse_share(share), jobs=jobs, trials=trials, options=options)
    page = run_study(name, base, values, setting)
    if page is None:
        print(f"share {share} is finished; the others are not yet, and the last one to finish gathers")
    else:
        print(page.read_text(encoding="utf-8"))
        print(f"written to {page} and beside it (.csv, .json, .png, .svg)")


def report(runs: RunPaths, /, format: str = "markdown", layout: str = "long", output: OutputPath = None) -> None:
    """One table of the results of any number of runs, the paper's numbers beside them.

    Args:
        runs: Run directories, folders of evaluations, or result files.
        format: markdown, terminal, csv or latex.
        layout: long, a row for each result; wide, a row for each run and a column for each data set.
        output: File to write to instead of the terminal.
    """
    from fakeit_eval.reporting.report import render
    from fakeit_eval.reporting.results import find_results, read_result

    text = render([read_result(path) for path in find_results(runs)], format, layout)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        print(f"written to {output}")


def _print(paths: list[Path], common: Common) -> None:
    from fakeit_eval.reporting.report import render
    from fakeit_eval.reporting.results import read_result

    results = [read_result(path) for path in paths]
    for line in dict.fromkeys(line for result in results for line in _notes(result["data"])):
        print(f"{PROGRAM}: {line}", file=sys.stderr)
    print(render(results, common.format))


def _notes(data: dict[str, Any]) -> Iterator[str]:
    """What people should know of the pictures that a result is of."""
    if unknown := data.get("unknown_classes"):
        shown = ", ".join(f"'{name}'" for name in unknown[:MAX_NAMED]) + (", …" if len(unknown) > MAX_NAMED else "")
        yield f"{len(unknown)} classes of '{data['path']}' are none of the model's and are left out: {shown}"
    if data.get("cut_files"):
        yield f"{data['cut_files']:,} files of '{data['name']}' end early and are read as far as they go"
    if data.get("note"):
        yield str(data["note"])


def _feature_file(path: Path, common: Common) -> Any:
    from fakeit_eval.features.feature_files import read_feature_file

    return read_feature_file(path, common.out)


def _given(data: tuple[str, ...]) -> tuple[str, ...]:
    if not data:
        raise UserError("no data to evaluate on; give --data a set by name, or pictures")
    return data


def _alone(option: str, *others: Sequence[str]) -> None:
    if any(others):
        raise UserError(f"{option} is evaluated by itself; leave out networks and other data")


COMMANDS: dict[str, Callable[..., Any]] = {
    "test": test,
    "probe": probe,
    "analyze": analyze,
    "suite": suite,
    "study": study,
    "report": report,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, by default the process's own."""
    with report_errors(PROGRAM, "eval"):
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=__doc__, args=arguments, config=(tyro.conf.DisallowNone,)
        )


if __name__ == "__main__":
    main()
