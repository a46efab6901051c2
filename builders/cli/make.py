"""`fakeit-build make` and `status`: make a clone, and see how far it is."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from builders.card.sections import CardText
from builders.cli.options import Options, OutPath, RecipeName, RecipeOptions, absolute_path
from builders.cli.recipes import print_prompt_warnings
from builders.cli.task_command import PROGRAM, task_command
from builders.command_line.duration import duration
from builders.command_line.progress import progress
from builders.coordination.failures import Failure
from builders.coordination.signals import IS_STOPPED, Preempted, Stop, StoppedError, on_signals
from builders.engines.base import engine
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.images.encode import CHANGES
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a clone is made."""

    shards: str | None = None
    """Make only shards A:B (without B) and do not finalize; a run without this option does."""
    runner: str = "local"
    """Who runs the shards: local, slurm, ray, or a plug-in."""
    workers: int = 0
    """Worker processes; 0 means one per GPU, or one without a GPU. For ray: actors; 0 means as many as the cluster holds."""
    address: str = ""
    """For ray: address of the cluster, such as HOST:6379; auto by default, local for a cluster of this run alone."""
    scratch: str = ""
    """Local folder for shards on their way to a remote OUT; by default one under the temporary directory."""
    patience: float = 360.0
    """Minutes for which to retry a store that does not answer."""
    preview: int = 0
    """Make only this many images, of random classes: writes preview.png and preview.json here, and nothing to OUT."""
    print_: Annotated[bool, tyro.conf.arg(name="print")] = False
    """For slurm: print the script for sbatch, and make nothing."""
    tasks: int = 64
    """For slurm: number of tasks in the array."""
    sbatch: str = ""
    """For slurm: more options for sbatch, such as --sbatch="--partition=gpu --time=08:00:00"."""
    license: str = ""
    """License of the images, for the card, as the Hub calls it: cc-by-4.0, …"""
    description: str = ""
    """A paragraph about the images, for the card."""

    def check(self) -> None:
        """Checks what can be checked before anything else.

        Raises:
            UserError: a value is out of range, or belongs to another runner.
        """
        if self.workers < 0 or self.tasks < 1:
            raise UserError(
                f"--workers {self.workers} --tasks {self.tasks} make nothing; give 0 or more workers, 1 or more tasks"
            )
        if self.preview < 0 or not 0 <= self.patience < 1e6:
            raise UserError(f"--preview {self.preview} --patience {self.patience} cannot be; give 0 or more")
        if (self.print_ or self.sbatch) and self.runner != "slurm":
            raise UserError(f"--print and --sbatch are options of --runner slurm, not of {self.runner}")
        if self.address and self.runner != "ray":
            raise UserError(f"--address is an option of --runner ray, not of {self.runner}")

    @property
    def text(self) -> CardText:
        """What the user says in the card."""
        return CardText(license=self.license, description=self.description)


Run = Annotated[RunOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="run")]


def make(recipe: RecipeName, out: OutPath, /, options: Options = RecipeOptions(), run: Run = RunOptions()) -> None:
    """Make a clone. Run again, it continues where it stopped; with more images, it grows. Any number of runs on any machines
    may work on one OUT at the same time. Exit status 1: some shards failed, and are named; 75: a signal stopped the run or a
    store did not answer, and starting it again continues.

    Args:
        recipe: builder/config, my_builder.py/config, or a recipe file such as another clone's clone.json.
        out: Directory or URL of the clone.
    """
    run.check()
    recipe, out, options = _absolute_recipe(recipe), absolute_path(out), options.with_absolute_paths()
    run = dataclasses.replace(run, scratch=absolute_path(run.scratch) if run.scratch else "")
    with on_signals() as stop:
        try:
            planned, execution = _prepare(recipe, options)
            if run.preview:
                _preview(planned, execution, run.preview)
            elif run.print_:
                _print_script(planned, recipe, out, options, run)
            else:
                _make(planned, execution, out, run, stop)
        except (Preempted, StoppedError):
            print(f"{PROGRAM}: {StoppedError()}", file=sys.stderr)
            raise SystemExit(IS_STOPPED) from None


def status(out: OutPath, /) -> None:
    """Say how far a clone is: finished, running, lost, failed, rate, time left. Works from any machine. Exit status 1 if any
    shard failed.

    Args:
        out: Directory or URL of the clone.
    """
    from builders.coordination.status import describe, read_status

    found = read_status(out)
    print("\n".join(describe(found)))
    if found.failures:
        raise SystemExit(1)


def _prepare(recipe: str, options: RecipeOptions) -> tuple[Plan, Execution]:
    """The plan with its model pinned, and the execution; prints warnings."""
    from builders.diffusion.token_counts import fetch_tokenizers
    from builders.engines.base import pin_model, source_notes

    planned = options.plan(recipe)
    planned = dataclasses.replace(planned, recipe=pin_model(planned.recipe))
    if options.model:
        for line in source_notes(planned.recipe):
            print(f"{PROGRAM}: {line}", file=sys.stderr)
    fetch_tokenizers(planned.recipe)
    print_prompt_warnings(planned)
    if not engine(planned.recipe.engine).IS_SYNTHETIC:
        _print_left_out_files(planned.recipe)
    return planned, options.execution(recipe, planned.recipe)


def _make(planned: Plan, execution: Execution, out: str, run: RunOptions, stop: Stop) -> None:
    from builders.make_clone import FailedShardsError, make_clone

    bars: list[Any] = []
    warned: list[str] = []

    def warn(note: str) -> None:
        warned.append(note)
        bars[0].write(f"{PROGRAM}: {note}", file=sys.stderr)

    try:
        manifest = make_clone(
            planned,
            out,
            execution=execution,
            shards=_parse_shards(run.shards, planned.num_shards),
            runner_name=run.runner,
            num_workers=run.workers,
            address=run.address,
            scratch=run.scratch,
            patience=60 * run.patience,
            stop=stop,
            text=run.text,
            on_start=lambda done, total: bars.append(progress(total, initial=done)),
            on_images=lambda num_images: bars[0].update(num_images),
            on_warning=warn,
        )
    except FailedShardsError as failed:
        causes = [cause for cause in failed.causes if cause not in warned]
        _print_failures(failed.failures, causes, has_given_up=failed.has_given_up)
        raise SystemExit(1) from None
    finally:
        for bar in bars:
            bar.close()
    if manifest is not None:
        _print_made(out, manifest)
    elif run.shards:
        print(
            f"shards {run.shards} of {planned.num_shards} are made in {out}; run again without --shards to finish the clone"
        )
    else:
        print(f"this task's shards of {out} are made; run again when the others are done to finish the clone")


def _preview(planned: Plan, execution: Execution, num_images: int) -> None:
    from builders.generation.preview import write_preview
    from builders.planning.cost import num_batches

    if execution.is_auto:
        raise UserError("--batch-size auto is measured by a run, not by a preview; give a number")
    found = write_preview(planned, execution, num_images, Path())
    total = duration(found["seconds_per_batch"] * num_batches(planned, execution.batch_size))
    print(
        f"preview.png, preview.json: {found['num_images']} images, {found['seconds_per_image']:g} s each in batches of "
        f"{execution.batch_size} on {found['environment']['device']}; all {planned.num_samples:,} take {total} of it"
    )


def _print_script(planned: Plan, recipe: str, out: str, options: RecipeOptions, run: RunOptions) -> None:
    from builders.runners.base import find_runner

    name = f"fakeit-{planned.recipe.name.replace('/', '-')}"
    command = task_command(planned, recipe, out, options, run)
    print(find_runner(run.runner).script(planned, name, command, run.tasks, run.sbatch), end="")


def _absolute_recipe(recipe: str) -> str:
    """The name of a recipe as it is; the path of a file made absolute."""
    file = recipe.rpartition("/")[0] if ".py/" in recipe else recipe
    return absolute_path(recipe) if Path(file).is_file() else recipe


def _parse_shards(text: str | None, num_shards: int) -> range | None:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    try:
        found = range(int(start or 0), int(stop or num_shards) if colon else int(start) + 1)
    except ValueError:
        raise UserError(f"--shards is '{text}'; write A:B, such as 0:{num_shards}") from None
    if not 0 <= found.start < found.stop <= num_shards:
        raise UserError(f"--shards {text} is not within the clone's shards 0:{num_shards}")
    return found


def _print_left_out_files(recipe: Recipe) -> None:
    """Names the files of a source that are not part of the clone."""
    from builders.images.folders import list_class_folders

    if note := list_class_folders(recipe.model_dir).note:
        print(f"{PROGRAM}: {note}", file=sys.stderr)
    if recipe.num_left_out:
        print(f"{PROGRAM}: {recipe.num_left_out:,} files cannot be read and are left out", file=sys.stderr)


def _print_made(out: str, manifest: Manifest) -> None:
    """Says what a finished clone holds, how real images were changed, and how to load it."""
    print(f"{out}: {manifest.num_samples:,} images in {len(manifest.shards)} shards, digest {manifest.digest[:16]}")
    verdicts = manifest.verdict_totals()
    for what, counts in (
        ("broken at every attempt", verdicts.broken),
        ("flagged and kept", verdicts.flagged),
        ("below the score of a check at every attempt", verdicts.low),
    ):
        if number := sum(counts.values()):
            print(f"  {number:,} images are {what}; their json says so")
    for change, count in manifest.change_totals().items():
        print(f"  {count:,} images were {CHANGES.get(change, change)} and encoded again")
    print(f"  datasets.load_dataset({out!r}, split={manifest.split!r})")


def _print_failures(failures: Sequence[Failure], causes: Sequence[str], *, has_given_up: bool) -> None:
    for line in (*failures, *causes):
        print(f"{PROGRAM}: {line}", file=sys.stderr)
    rest = "no worker is left for the rest" if has_given_up else "all other shards are made"
    print(f"{PROGRAM}: {rest}; run again to continue", file=sys.stderr)
