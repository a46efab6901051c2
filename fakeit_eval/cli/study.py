"""`fakeit-eval study` and `report`: the paper's studies, and tables of results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

StudyName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
RunPaths = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
OutputPath = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]


@dataclass(frozen=True, kw_only=True)
class Resources:
    jobs: int = 1
    """Runs at the same time. Each has GPUs of its own, which no other study on this machine uses meanwhile."""
    gpus_per_run: int = 1
    """GPUs that each run trains on; with several, under torchrun. Other commands take one GPU."""
    workers: int | None = None
    """Processes that load images, for each GPU; by default as each command has it."""
    batch_size: int | None = None
    """Images per forward of the evaluations."""


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
    resources: Annotated[Resources, tyro.conf.arg(name="")] = Resources(),
    trials: int = 30,
    guidance: float = 0.0,
    print_commands: Annotated[bool, tyro.conf.arg(name="print")] = False,
) -> None:
    """Run one of the paper's studies: make, train and evaluate for every value, then write table, page and figure.

    Finished clones, runs and results are used again; a study that was stopped continues when it is run again.

    Args:
        name: guidance, steps, size, prompts, augmentation, features, card, or predict.
        base: What the study runs on: digits, imagenet_100 or imagenet_1k.
        values: Values to compare; by default the study's own.
        out: Folder of clones, runs and results; studies in one folder share them.
        seeds: Training seeds; all of them train on the same clone of each value.
        fixed: What stays the same over dataset sizes: iterations or epochs; the paper does not say.
        real: Class folders of the real training images, or a clone's URL; digits have their own.
        root: Directory of the published datasets, laid out as docs/evaluation.md says.
        share: This machine's share i/n of the runs; the last machine to finish writes the table.
        trials: Trials of each probe's search.
        guidance: Guidance scale of the card's synthetic images; by default 7.5. The paper does not say.
        print_commands: Print the commands instead, for a cluster's scheduler. Run the study again once they have
            finished; it then writes the table.
    """
    from fakeit_eval.studies.base import Options
    from fakeit_eval.study import parse_share, run_study
    from fakeit_eval.study_runs import Setting

    options = Options(seeds=seeds, fixed=fixed, real=real, guidance=guidance)
    setting = Setting(
        out=out,
        root=root,
        share=parse_share(share),
        trials=trials,
        options=options,
        **vars(resources),
    )
    page = run_study(name, base, values, setting, is_printed=print_commands)
    if print_commands:
        return
    if page is None:
        print(f"share {share} is finished, but others are not; the last one to finish writes the table")
    else:
        print(page.read_text(encoding="utf-8"))
        print(f"written to {page} and beside it (.csv, .json, .png, .svg)")


def report(runs: RunPaths, /, format: str = "markdown", layout: str = "long", output: OutputPath = None) -> None:
    """Print one table of the results of any number of runs, next to the paper's numbers.

    Args:
        runs: Run directories, folders of evaluations, or result files.
        format: markdown, terminal, csv or latex.
        layout: long, a row per result; wide, a row per run and a column per dataset.
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
