"""fakeit-build: make, check and show clones. Also `python -m builders`."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from builders.classes.class_options import ClassOptions
from builders.format.command import told_in_one_sentence
from builders.format.errors import UserError
from builders.format.manifest import Manifest
from builders.format.progress import progress
from builders.format.storage import Storage, open_storage
from builders.images.encode import CHANGES
from builders.making.engines.base import engine
from builders.making.execution import AUTO, Execution, override_execution
from builders.making.failures import Failure
from builders.making.plan import Plan
from builders.making.recipe import Recipe
from builders.making.sample import Sample
from builders.making.stopping import IS_STOPPED, Dropped, StoppedError, on_signals
from builders.publishing.card_edits import CardText

PROGRAM = "fakeit-build"
SKIP_BROKEN, DEFAULT_SHARE = "--skip-broken", "0.01"
RecipeName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
ClonePath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CLONE")]
FromRecipe = tyro.conf.arg(help_behavior_hint="(default: the recipe's)")
Text = Annotated[str | None, FromRecipe]
Whole = Annotated[int | None, FromRecipe]
Number = Annotated[float | None, FromRecipe]
Switch = Annotated[bool | None, FromRecipe]
OutPath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    images_per_class: Whole = None
    """How many images of each class (of the largest one, where counts differ)."""
    scale: Number = None
    """The same as a multiple of the recipe's own number, such as 0.1 or 50."""
    prompt: Text = None
    """Prompt template over {c}, {lemma}, {h_c}, {d_c}, {b}."""
    negative_prompt: Text = None
    """What to guide away from."""
    model: Text = None
    """Hub id or directory of a diffusers pipeline."""
    revision: Text = None
    """Commit of the model on the Hub."""
    scheduler: Text = None
    """Sampler, as diffusers calls its class."""
    guidance_scale: Number = None
    """Classifier-free guidance; 1 or less switches it off."""
    num_inference_steps: Whole = None
    """Denoising steps an image."""
    width: Whole = None
    """Pixels."""
    height: Whole = None
    """Pixels."""
    dtype: Text = None
    """float32, float16 or bfloat16."""
    scenes: tuple[str, ...] | None = None
    """Places categories that {b} is drawn from."""
    batch_size: Text = None
    """Images made together, or auto: the smallest within 3 % of the best rate on the first worker's card."""
    num_threads: Whole = None
    """CPU threads of a worker."""
    channels_last: Switch = None
    """Channels-last convolutions, faster on GPUs in 16 bits."""
    compile: Switch = None
    """Put the denoiser through torch.compile."""
    vae_slicing: Switch = None
    """Decode images one by one, which takes less memory."""
    safety: Text = None
    """The model's own checker: off, flag (keep its verdict), or drop (make flagged images again with another seed)."""
    image_format: Text = None
    """jpg, png or webp."""
    image_quality: Whole = None
    """Quality of jpg and webp, 1 to 100."""
    seed: Whole = None
    """Seed from which every image's own is derived."""
    shard_size: Whole = None
    """About how many images a shard holds."""
    background_color: Text = None
    """Color behind the transparent pixels of real images: a name or #rrggbb."""
    source: str | None = None
    """Class folders (real_images, custom_sd), or a text file with a name, synset or wnid a line (custom_sd)."""
    counts: str | None = None
    """File of lines "class id, count": how many images of each class the 1x clone has."""
    hypernym_lemmas: str | None = None
    """Which lemmas of the parent {h_c} is: first or all."""
    hypernym_parent: int | None = None
    """Which parent {h_c} is taken from, where WordNet has several: 1, 2, …"""
    skip_broken: float | None = None
    """Leave out real images that cannot be read, up to this share of all; by itself the option means 0.01."""

    def overrides(self) -> dict[str, Any]:
        """Fields of the recipe that were given."""
        names = {f.name for f in dataclasses.fields(Recipe)}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name in names}

    def execution(self, recipe: str) -> Execution:
        """How workers compute: as it was asked for, else as the recipe's builder says."""
        from builders.making.catalogue import find_execution

        names = [f.name for f in dataclasses.fields(Execution)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.batch_size is not None:
            given["batch_size"] = AUTO if self.batch_size == "auto" else _batch_size(self.batch_size)
        return override_execution(find_execution(recipe), given)

    def absolute(self) -> "RecipeOptions":
        """The options with every path from the root; a model that is no directory here is an id of the Hub."""
        model = _absolute(self.model) if self.model and Path(self.model).is_dir() else self.model
        source = _absolute(self.source) if self.source else self.source
        counts = _absolute(self.counts) if self.counts else self.counts
        return dataclasses.replace(self, model=model, source=source, counts=counts)

    def class_options(self) -> ClassOptions:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(ClassOptions)}
        return ClassOptions(**{name: value for name, value in given.items() if value is not None})


Options = Annotated[RecipeOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="recipe")]


def list_() -> None:
    """List all recipes, with what each is."""
    from builders.making.catalogue import builder_names, find_builder

    for name in builder_names():
        for config, recipe in find_builder(name).RECIPES.items():
            print(f"{name}/{config:24} {engine(recipe.engine).describe(recipe)}")


def plan(recipe: RecipeName, /, options: Options = RecipeOptions(), limit: int = 10, at: tuple[int, ...] = ()) -> None:
    """Show what would be made, as a table, and what is odd about the prompts; make nothing.

    Args:
        recipe: builder/config, or a recipe file such as another clone's clone.json.
        limit: How many samples to show from the beginning; the last one always follows.
        at: Show the samples at these positions instead, numbered from 0.
    """
    from builders.making.costs import costs

    planned = _plan(recipe, options)
    print(f"{planned.recipe.name}: {planned.num_samples:,} images, {len(planned.recipe.classes):,} classes, ", end="")
    print(f"{planned.num_shards:,} shards of {planned.shard_length(0):,}")
    for position in at:
        if not 0 <= position < planned.num_samples:
            raise UserError(f"--at {position} is not within the clone's samples 0:{planned.num_samples}")
    if limit < 0:
        raise UserError(f"--limit is {limit}; give 0 or more")
    shown = min(limit, planned.num_samples)
    for position in at or range(shown):
        _print_sample(position, planned.sample_at(position))
    if not at and shown < planned.num_samples:
        print("…")
        _print_sample(planned.num_samples - 1, planned.sample_at(planned.num_samples - 1))
    print("\n".join(costs(planned, options.execution(recipe))))
    _warn(planned)


def make(
    recipe: RecipeName,
    out: OutPath,
    /,
    options: Options = RecipeOptions(),
    shards: str | None = None,
    runner: str = "local",
    workers: int = 0,
    address: str = "",
    scratch: str = "",
    patience: float = 360.0,
    preview: int = 0,
    print_: Annotated[bool, tyro.conf.arg(name="print")] = False,
    tasks: int = 64,
    sbatch: str = "",
    license: str = "",
    description: str = "",
) -> None:
    """Make a clone. Run again, it goes on where it stopped; asked for more images, it grows. Any number of runs on any machines
    may be at work on one OUT at the same time. Exit status 1: some shards failed, and are named; 75: stopped by a signal, or a
    store did not answer, so that starting again goes on.

    Args:
        recipe: builder/config, my_builder.py/config, or a recipe file such as another clone's clone.json.
        out: Directory or URL of the clone.
        shards: Make only shards A:B (B not included) and do not finalise; a run without it does.
        runner: Who runs the shards: local, slurm, ray, or a plug-in.
        workers: Worker processes (of ray: actors); 0 is one for each GPU, or one, and with ray as many as the cluster holds.
        address: Of ray: the cluster's, such as HOST:6379, from one of its nodes; auto by default, local for one of this run.
        scratch: Local folder for shards on their way to a remote OUT; by default one under the temporary directory.
        patience: Minutes for which a store that does not answer is asked again.
        preview: Make only so many images, of classes drawn at random: preview.png and preview.json here, nothing in OUT.
        print_: Of slurm: print the script for sbatch, and make nothing.
        tasks: Of slurm: tasks of the array.
        sbatch: Of slurm: more options of sbatch, such as --sbatch="--partition=gpu --time=08:00:00".
        license: License of the images, for the card, as the Hub calls it: cc-by-4.0, …
        description: A paragraph about the images, for the card.
    """
    if workers < 0 or tasks < 1:
        raise UserError(f"--workers {workers} --tasks {tasks} make nothing; give 0 or more workers, 1 or more tasks")
    if preview < 0 or not 0 <= patience < 1e6:
        raise UserError(f"--preview {preview} --patience {patience} cannot be; give 0 or more")
    if (print_ or sbatch) and runner != "slurm":
        raise UserError(f"--print and --sbatch are of --runner slurm, not of {runner}")
    if address and runner != "ray":
        raise UserError(f"--address is of --runner ray, not of {runner}")
    text = CardText(license=license, description=description)
    recipe, out, options = _absolute_recipe(recipe), _absolute(out), options.absolute()
    scratch = _absolute(scratch) if scratch else ""
    with on_signals() as stop:
        try:
            planned, execution = _prepared(recipe, options)
            if preview:
                _preview(planned, execution, preview)
            elif print_:
                of_task = {"workers": workers or None, "scratch": scratch, "patience": patience, **asdict(text)}
                _print_script(planned, _task_command(planned, recipe, out, options, of_task), tasks, sbatch)
            else:
                _make(
                    planned,
                    out,
                    shards,
                    runner_name=runner,
                    num_workers=workers,
                    address=address,
                    scratch=scratch,
                    patience=60 * patience,
                    execution=execution,
                    text=text,
                    stop=stop,
                )
        except (Dropped, StoppedError):
            print(f"{PROGRAM}: {StoppedError()}", file=sys.stderr)
            raise SystemExit(IS_STOPPED) from None


def _prepared(recipe: str, options: RecipeOptions) -> tuple[Plan, Execution]:
    """The plan with its model pinned, and how it is computed; says what is odd about it."""
    from builders.making.models import pin_model
    from builders.making.prompt_warnings import fetch_tokenizers

    planned = _plan(recipe, options)
    planned = dataclasses.replace(planned, recipe=pin_model(planned.recipe))
    fetch_tokenizers(planned.recipe)
    _warn(planned)
    if not engine(planned.recipe.engine).IS_SYNTHETIC:
        _warn_of_files(planned.recipe)
    return planned, options.execution(recipe)


def _make(planned: Plan, out: str, shards: str | None, **settings: Any) -> None:
    from builders.making.make import FailedShardsError, make_clone

    bars: list[Any] = []
    try:
        manifest = make_clone(
            planned,
            out,
            shards=_shard_range(shards, planned.num_shards),
            on_start=lambda done, total: bars.append(progress(total, initial=done)),
            on_images=lambda num_images: bars[0].update(num_images),
            on_note=lambda note: bars[0].write(f"{PROGRAM}: {note}", file=sys.stderr),
            **settings,
        )
    except FailedShardsError as failed:
        _print_failures(failed.failures, failed.causes, has_given_up=failed.has_given_up)
        raise SystemExit(1) from None
    finally:
        for bar in bars:
            bar.close()
    if manifest is None:
        done = f"shards {shards} of {planned.num_shards} are made in {out}" if shards else f"this part of {out} is made"
        print(f"{done}; run again {'without --shards' if shards else 'when the others are done'} to finish the clone")
    else:
        _print_made(out, manifest)


def _preview(planned: Plan, execution: Execution, num_images: int) -> None:
    from builders.making.preview import write_preview
    from builders.making.status import duration

    if execution.is_auto:
        raise UserError("--batch-size auto is measured by a run, not by a preview; give a number")
    says = write_preview(planned, execution, num_images, Path())
    total = duration(says["seconds_per_image"] * planned.num_samples)
    print(
        f"preview.png, preview.json: {says['num_images']} images, {says['seconds_per_image']:g} s each in batches of "
        f"{execution.batch_size} on {says['environment']['device']}; all {planned.num_samples:,} take {total} of it"
    )


def _print_script(planned: Plan, command: Sequence[str], tasks: int, sbatch: str) -> None:
    from builders.making.runners.slurm import script

    print(script(planned, f"fakeit-{planned.recipe.name.replace('/', '-')}", command, tasks, sbatch), end="")


def _task_command(planned: Plan, recipe: str, out: str, options: RecipeOptions, more: dict[str, Any]) -> list[str]:
    """The command line of a task of the array: it means the same from every directory, and names the model's revision."""
    if engine(planned.recipe.engine).IS_SYNTHETIC:
        options = dataclasses.replace(options, revision=options.revision or planned.recipe.revision)
    program = [PROGRAM] if Path(sys.argv[0]).name == PROGRAM else [sys.executable, "-m", "builders"]
    words = [*program, "make", recipe, out, "--runner", "slurm"]
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)} | more
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [flag, *value]
        elif value not in (None, ""):
            words += [flag, str(value)]
    return words


def _absolute_recipe(recipe: str) -> str:
    """A recipe's name as it is; a file's path from the root."""
    file = recipe.rpartition("/")[0] if ".py/" in recipe else recipe
    return _absolute(recipe) if Path(file).is_file() else recipe


def _batch_size(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UserError(f"batch_size is {text}, but must be at least 1, or auto")


def _absolute(path: str) -> str:
    """A path of this machine from the root, so that workers with another working directory take it for the same place."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _print_made(out: str, manifest: Manifest) -> None:
    """Says what a finished clone holds, what was done to real images, and how to load it."""
    print(f"{out}: {manifest.num_samples:,} images in {len(manifest.shards)} shards, digest {manifest.digest[:16]}")
    verdicts = manifest.verdict_totals()
    for what, counts in (("broken at every attempt", verdicts.broken), ("flagged and kept", verdicts.flagged)):
        if number := sum(counts.values()):
            print(f"  {number:,} images are {what}; their json says so")
    for change, count in manifest.change_totals().items():
        print(f"  {count:,} images were {CHANGES.get(change, change)} and encoded again")
    print(f"  datasets.load_dataset({out!r}, split={manifest.split!r})")


def _print_failures(failures: Sequence[Failure], causes: Sequence[str], *, has_given_up: bool) -> None:
    for line in (*failures, *causes):
        print(f"{PROGRAM}: {line}", file=sys.stderr)
    rest = "no worker is left for the rest" if has_given_up else "all else is made"
    print(f"{PROGRAM}: {rest}; run again to go on", file=sys.stderr)


def status(out: OutPath, /) -> None:
    """Say how far a clone is: done, running, lost, failed, rate, time left. From any machine; exit status 1 if any failed.

    Args:
        out: Directory or URL of the clone.
    """
    from builders.making.status import describe, read_status

    found = read_status(out)
    print("\n".join(describe(found)))
    if found.failures:
        raise SystemExit(1)


def verify(clone: ClonePath, /, deep: bool = False, workers: int = os.cpu_count() or 1) -> None:
    """Check a clone: counts, checksums, schema, labels, plan, pictures. A line for each fault; exit status 1 if any.

    Args:
        clone: Directory or URL of the clone.
        deep: Decode every picture, too.
        workers: Worker processes on this machine.
    """
    from builders.format.manifest import read_manifest
    from builders.making.verify import verify_clone

    if workers < 1:
        raise UserError(f"{workers} workers check nothing; give --workers 1 or more")
    manifest = read_manifest(open_storage(clone))
    num_faults = 0
    with progress(manifest.num_samples) as bar:
        for fault in verify_clone(clone, deep=deep, num_workers=workers, on_samples=bar.update):
            num_faults += 1
            bar.write(str(fault), file=sys.stdout)
    if num_faults:
        print(f"{clone}: {num_faults} faults")
        raise SystemExit(1)
    print(f"{clone}: no faults in {manifest.num_samples:,} images, {len(manifest.shards)} shards")


def card(
    clones: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CLONE_OR_RECIPE")],
    /,
    check: bool = False,
    folder: Path = Path("cards"),
) -> None:
    """Write cards anew: a clone's from its manifest, a recipe's (builder/config, or all of a builder) from its plan.

    Args:
        clones: Directories or URLs of clones, or recipes.
        check: Write nothing; exit with status 1 if a card is stale.
        folder: Where the cards of recipes are written, as builder/config.md.
    """
    from builders.making.catalogue import recipes_named

    if not clones:
        raise UserError("no card to write; give a clone or a recipe")
    is_any_stale = False
    for name in clones:
        found = recipes_named(name)
        for storage, file, rendered in _recipe_cards(found, folder) if found else _clone_card(name):
            is_stale = not storage.exists(file) or storage.read(file) != rendered
            if is_stale and not check:
                storage.write(file, rendered)
            is_any_stale |= is_stale
            print(f"{storage.root}/{file} is {('stale' if check else 'written') if is_stale else 'up to date'}")
    if check and is_any_stale:
        raise SystemExit(1)


def _clone_card(clone: str) -> Iterator[tuple[Storage, str, bytes]]:
    from builders.format.manifest import CARD, read_manifest
    from builders.publishing.card import clone_card

    storage = open_storage(clone)
    yield storage, CARD, clone_card(storage, read_manifest(storage))


def _recipe_cards(recipes: list[str], folder: Path) -> Iterator[tuple[Storage, str, bytes]]:
    from builders.making.catalogue import find_recipe
    from builders.making.models import pin_embedded
    from builders.publishing.card import render_recipe_card

    for recipe in recipes:
        yield open_storage(folder), f"{recipe}.md", render_recipe_card(pin_embedded(find_recipe(recipe, {}))).encode()


def push(
    clone: ClonePath,
    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="REPO_OR_URL")],
    /,
    private: bool = False,
    revision: str = "main",
    config: str = "",
    tag: bool = False,
    replace: bool = False,
) -> None:
    """Put a clone where others read it, checked before and after. Run again, it goes on where it stopped.

    Args:
        clone: Directory of the clone.
        target: user/name on the Hub, or a URL: s3://…, hf://buckets/user/name/…, any that fsspec writes to.
        private: Make the repo a private one.
        revision: Branch of the repo.
        config: Put the clone into the repo as one of several, with this name for load_dataset.
        tag: Tag the version, as the card tells it.
        replace: Put it in the place of a clone of another recipe.
    """
    from builders.format.manifest import read_manifest

    manifest = read_manifest(open_storage(clone))
    is_url = "://" in target
    if target.startswith("hf://") and not target.startswith("hf://buckets/"):
        raise UserError(f"'{target}' is a repo; write user/name, with --revision and --config for the rest")
    if is_url and (private or config or tag or replace or revision != "main"):
        raise UserError(
            f"'{target}' is no repo of the Hub; leave out --private, --revision, --config, --tag and --replace"
        )
    with _bytes_bar(manifest.num_bytes + sum(file.num_bytes for file in manifest.metadata)) as on_progress:
        if is_url:
            from builders.publishing.push import push_to_url

            push_to_url(clone, target, on_progress)
            told = [f"{target}: {manifest.num_samples:,} images", f"fakeit-train CONFIG --data {target} --out RUN"]
        else:
            from builders.publishing.hub import Place, push_to_hub

            place = Place(private=private, revision=revision, config=config)
            pushed = push_to_hub(clone, target, place, tag=tag, replace=replace, on_progress=on_progress)
            told = [f"{pushed.url} at {pushed.commit}{f', tag {pushed.tag}' if tag else ''}", pushed.load_line]
    print("\n  ".join(told))


@contextmanager
def _bytes_bar(num_bytes: int) -> Iterator[Callable[[int, int], object]]:
    """A progress bar in bytes that counts files beside them."""
    num_files = 0
    with progress(num_bytes, unit="B") as bar:

        def on_progress(files: int, size: int) -> None:
            nonlocal num_files
            num_files += files
            bar.set_postfix_str(f"{num_files:,} files", refresh=False)
            bar.update(size)

        yield on_progress


def sheet(
    clones: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CLONE")],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sheet.png"),
    real: str | None = None,
    classes: tuple[str, ...] = (),
    per_class: int = 8,
    card: str = "",
) -> None:
    """Draw a contact sheet: a row per class, a block of images per clone, real ones first.

    Args:
        clones: Directories or URLs of clones of the same classes.
        output: The PNG to write.
        real: A clone of real images, or a directory of class folders.
        classes: Only these classes, by class id or first lemma.
        per_class: Images per class in each block.
        card: A clone whose card gets the sheet, too.
    """
    from builders.showing.sheet import draw_sheet

    if per_class < 1 or output.suffix != ".png":
        raise UserError(f"--per-class {per_class} -o {output} cannot be drawn; give 1 or more, and a .png")
    _check_card(card)
    drawn = draw_sheet(list(clones), real, per_class, list(classes))
    drawn.save(output)
    print(output)
    _put_into_card(card, "sheet.png", output)


def grid(
    recipe: RecipeName,
    class_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CLASS")],
    /,
    options: Options = RecipeOptions(),
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("grid.png"),
    guidance: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0),
    steps: tuple[int, ...] = (5, 10, 25, 50),
    image_seed: int = 1947262,
    card: str = "",
) -> None:
    """Draw one class at one seed over guidance scales and step counts: Fig. 5 of the paper.

    Args:
        recipe: builder/config, or a recipe file such as a clone's clone.json.
        class_id: Class id, such as n01558993.
        output: The PNG to write.
        guidance: Guidance scales, a column each.
        steps: Step counts, a row each.
        image_seed: Seed of the image, the same in every cell.
        card: A clone whose card gets the grid, too.
    """
    from builders.making.models import pin_model
    from builders.showing.grid import draw_grid

    if output.suffix != ".png":
        raise UserError(f"-o {output} is no .png; give one")
    _check_card(card)
    drawn = draw_grid(pin_model(_plan(recipe, options).recipe), class_id, image_seed, guidance, steps)
    drawn.save(output)
    print(output)
    _put_into_card(card, "grid.png", output)


def _check_card(clone: str) -> None:
    """Before anything is drawn: whether there is such a clone."""
    from builders.format.manifest import read_manifest

    if clone:
        read_manifest(open_storage(clone))


def _put_into_card(clone: str, name: str, picture: Path) -> None:
    """Puts a picture beside a clone's manifest and writes its card anew; nothing without a clone."""
    if not clone:
        return
    from builders.format.manifest import CARD, read_manifest
    from builders.publishing.card import clone_card

    storage = open_storage(clone)
    manifest = read_manifest(storage)
    storage.write(name, picture.read_bytes())
    storage.write(CARD, clone_card(storage, manifest))
    print(f"{storage.url(CARD)} shows {name}")


def gallery(
    clone: ClonePath,
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("gallery"),
    real: str = "",
    beside: str = "",
    audit: str = "",
    per_class: int = 60,
) -> None:
    """Write a static site to look at a clone: every class, search, filters, each image with what made it.

    Args:
        clone: Directory or URL of the clone.
        output: Folder of the site; open its index.html, or put it on any web server.
        real: Real images beside it: a directory of class folders, or a clone.
        beside: Another clone, joined on key, such as the same with another guidance.
        audit: Folder of an audit of the clone; by default the one that lies in the clone.
        per_class: Images of a class on its page.
    """
    from builders.showing.gallery import write_gallery

    if per_class < 1:
        raise UserError(f"--per-class {per_class} shows nothing; give 1 or more")
    print(write_gallery(clone, output, real=real, beside=beside, audit=audit, per_class=per_class))


def compare(
    first: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")],
    second: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="B")],
    /,
    max_decoded: int = 1000,
) -> None:
    """Say how two clones differ: settings, and images with the same key, by how much.

    Args:
        first: Directory or URL of a clone.
        second: Directory or URL of another.
        max_decoded: Pairs whose pixels are compared at most.
    """
    from builders.showing.compare import compare_clones, describe

    if max_decoded < 0:
        raise UserError(f"--max-decoded {max_decoded} is no number of pairs; give 0 or more")
    print("\n".join(describe(compare_clones(first, second, max_decoded))))


def audit(
    clone: ClonePath,
    /,
    clip: str = "",
    revision: str = "",
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = "",
    write_exclude: Path | None = None,
    exclude: tuple[str, ...] = (),
    batch_size: int = 64,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Look for what is wrong with a clone's pictures: broken, blank, duplicate, flagged; with --clip also wrong labels, other
    senses of a name, backgrounds that swallow the object, pictures that are no photographs. Deletes nothing.

    Args:
        clone: Directory or URL of the clone.
        clip: Hub id or directory of a CLIP of transformers (or SigLIP, …), such as openai/clip-vit-base-patch32.
        revision: Commit of the CLIP on the Hub.
        output: Folder for audit.json and audit.parquet; by default the clone itself, whose card gets a section.
        write_exclude: File for the keys of what was found, for fakeit-train --exclude.
        exclude: Kinds of findings that go into it; by default broken, blank, duplicate, nsfw and label.
        batch_size: Pictures that the CLIP sees together.
        workers: Threads that decode.
    """
    from builders.format.manifest import CARD, read_manifest
    from builders.publishing.card import clone_card
    from builders.showing.audit.audit import audit_clone
    from builders.showing.audit.clip import ClipScorer
    from builders.showing.audit.findings import KINDS, SKIPPED, check_kinds

    storage, target = open_storage(clone), open_storage(output or clone)
    manifest = read_manifest(storage)
    if not output and not storage.is_local:
        raise UserError(f"'{clone}' is not on this machine; give -o a folder for the audit")
    if batch_size < 1 or workers < 1:
        raise UserError(f"--batch-size {batch_size} --workers {workers} look at nothing; give 1 or more of both")
    if revision and not clip:
        raise UserError(f"--revision {revision} is of no model; give --clip one")
    check_kinds(exclude, has_scorer=bool(clip))
    scorer = ClipScorer(clip, revision) if clip else None
    with progress(manifest.num_samples) as bar:
        found = audit_clone(clone, scorer, batch_size=batch_size, num_threads=workers, on_images=bar.update)
    found.write(target)
    if not output:
        storage.write(CARD, clone_card(storage, manifest))
    summary = found.summary()
    for kind, count in summary["found"].items():
        print(f"{kind:11}{count:>10,}  {count / manifest.num_samples:>7.2%}  {KINDS[kind]}")
    if not clip:
        print("labels, senses, backgrounds and media were not looked at: give --clip a model")
    elif summary["note"]:
        print(summary["note"])
    print(f"{target.url('audit.json')}")
    if write_exclude:
        keys = found.keys(exclude or [kind for kind in SKIPPED if kind in summary["found"]])
        write_exclude.write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
        print(f"{write_exclude}: {len(keys):,} keys; fakeit-train CONFIG --data {clone} --exclude {write_exclude}")


def redo(
    clone: ClonePath,
    key: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KEY")],
    /,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    model: str | None = None,
) -> None:
    """Make one image again from its own metadata and say whether it is the same. Exit status 1 if it is not.

    Args:
        clone: Directory or URL of the clone.
        key: Key of the image, such as n01558993_00000007.
        output: Where to write the new picture.
        model: Directory of the model, if it was not made with a model of the Hub.
    """
    from builders.format.open_clone import open_clone
    from builders.making.redo import redo as make_again

    redone = make_again(open_clone(clone), key, model)
    if output:
        output.write_bytes(redone.image)
    print(f"{key}: {redone}")
    if not redone.is_identical:
        raise SystemExit(1)


def _plan(recipe: str, options: RecipeOptions) -> Plan:
    from builders.making.catalogue import find_recipe

    found = find_recipe(recipe, options.overrides(), options.class_options())
    return Plan(found, found.rounds(options.images_per_class, options.scale))


def _warn(planned: Plan) -> None:
    from builders.making.prompt_warnings import prompt_warnings

    for warning in prompt_warnings(planned):
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)


def _warn_of_files(recipe: Recipe) -> None:
    """Names the files of a source that do not come into the clone."""
    from builders.images.folders import list_class_folders

    if note := list_class_folders(recipe.model_dir).note:
        print(f"{PROGRAM}: {note}", file=sys.stderr)
    if recipe.num_left_out:
        print(f"{PROGRAM}: {recipe.num_left_out:,} files cannot be read and are left out", file=sys.stderr)


def _print_sample(position: int, sample: Sample) -> None:
    print(f"{position:>10,}  {sample.key}  seed {sample.seed:<16}  {sample.prompt}")


def _shard_range(text: str | None, num_shards: int) -> range | None:
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


def _with_share(arguments: Sequence[str]) -> list[str]:
    """`--skip-broken` by itself stands for its default share; tyro has no options whose value may be left out."""
    found: list[str] = []
    for word, after in zip(arguments, [*arguments[1:], "--"], strict=True):
        found += [word, DEFAULT_SHARE] if word.replace("_", "-") == SKIP_BROKEN and not _is_number(after) else [word]
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


COMMANDS: dict[str, Callable[..., Any]] = {
    "list": list_,
    "plan": plan,
    "make": make,
    "status": status,
    "verify": verify,
    "card": card,
    "redo": redo,
    "push": push,
    "sheet": sheet,
    "grid": grid,
    "compare": compare,
    "gallery": gallery,
    "audit": audit,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, by default the process's own."""
    with told_in_one_sentence(PROGRAM, "build"):
        arguments = _with_share(sys.argv[1:] if arguments is None else arguments)
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=__doc__, args=arguments, config=(tyro.conf.DisallowNone,)
        )


if __name__ == "__main__":
    main()
