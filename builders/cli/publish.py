"""`fakeit-build card` and `push`: describe a clone, and put it where others read it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from builders.cli.options import ClonePath
from builders.command_line.progress import progress
from builders.errors import UserError
from builders.format.manifest import read_manifest
from builders.format.names import CARD
from builders.storage.base import Storage, open_storage

if TYPE_CHECKING:
    from builders.publishing.push_to_hub import HubTarget


def card(
    clones: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CLONE_OR_RECIPE")],
    /,
    check: bool = False,
    folder: Path = Path("cards"),
    measures: Path | None = None,
) -> None:
    """Write cards anew: a clone's from its manifest, a recipe's (builder/config, or all of a builder) from its plan.

    Args:
        clones: Directories or URLs of clones, or recipes.
        check: Write nothing; exit with status 1 if a card is out of date.
        folder: Folder for the cards of recipes, as builder/config.md.
        measures: A result of `fakeit-eval data` on the clone, for a section of the card; it is copied into the clone.
    """
    from builders.registry import recipes_named

    if not clones:
        raise UserError("no card to write; give a clone or a recipe")
    if measures:
        _put_measures(clones, measures)
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
    """Publish a clone on the Hub or at a URL; it is checked before and after. Run again, it continues where it stopped.

    Args:
        clone: Directory of the clone.
        target: user/name on the Hub, or a URL: s3://…, hf://buckets/user/name/…, any that fsspec writes to.
        private: Make a new repo private.
        revision: Branch of the repo.
        config: Make the clone one of several in the repo, with this name for load_dataset.
        tag: Tag the version that the card names.
        replace: Replace a clone of another recipe.
    """
    if target.startswith("hf://") and not target.startswith("hf://buckets/"):
        raise UserError(f"'{target}' is a repo; write user/name, with --revision and --config for the rest")
    if "://" not in target:
        from builders.publishing.push_to_hub import HubTarget

        _push_to_hub(clone, target, HubTarget(private=private, revision=revision, config=config), tag, replace)
        return
    if private or config or tag or replace or revision != "main":
        raise UserError(
            f"'{target}' is no repo of the Hub; leave out --private, --revision, --config, --tag and --replace"
        )
    from builders.publishing.push_to_url import push_to_url

    manifest = read_manifest(open_storage(clone))
    with _bytes_bar(manifest.num_bytes + sum(file.num_bytes for file in manifest.metadata)) as on_progress:
        push_to_url(clone, target, on_progress)
    print(f"{target}: {manifest.num_samples:,} images\n  fakeit-train CONFIG --data {target} --out RUN")


def show_in_card(clone: str, name: str, image: Path) -> None:
    """Puts an image file into a clone and writes its card anew; does nothing without a clone."""
    if not clone:
        return
    from builders.card.render import clone_card

    storage = open_storage(clone)
    manifest = read_manifest(storage)
    storage.write(name, image.read_bytes())
    storage.write(CARD, clone_card(storage, manifest))
    print(f"{storage.url(CARD)} shows {name}")


def _put_measures(clones: tuple[str, ...], path: Path) -> None:
    """Copies a result of `fakeit-eval data` into the one clone that it measures."""
    from builders.card.measures import MEASURES, check_measured, parse_measures, without_paths

    if len(clones) > 1:
        raise UserError(f"--measures {path} belongs to one clone; give that one alone")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}); give --measures a result file") from None
    storage = open_storage(clones[0])
    found = parse_measures(content, str(path))
    check_measured(found, read_manifest(storage).digest, clones[0], str(path))
    storage.write(MEASURES, json.dumps(without_paths(found), indent=1).encode())


def _push_to_hub(clone: str, repo_id: str, target: "HubTarget", tag: bool, replace: bool) -> None:
    # hf_xet reads this when it is imported: it notes what it has uploaded at once, so that a push that is killed and run again
    # sends at most the pieces that were on their way.
    os.environ.setdefault("HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_MAX_COUNT", "1")
    from huggingface_hub.utils import disable_progress_bars, logging

    from builders.publishing.push_to_hub import push_to_hub

    logging.set_verbosity_error()  # retries are no news
    if not sys.stderr.isatty():
        disable_progress_bars()
    pushed = push_to_hub(clone, repo_id, target, tag=tag, replace=replace)
    print(f"{pushed.url} at {pushed.commit}{f', tag {pushed.tag}' if tag else ''}\n  {pushed.load_line}")


def _clone_card(clone: str) -> Iterator[tuple[Storage, str, bytes]]:
    from builders.card.render import clone_card

    storage = open_storage(clone)
    yield storage, CARD, clone_card(storage, read_manifest(storage))


def _recipe_cards(recipes: list[str], folder: Path) -> Iterator[tuple[Storage, str, bytes]]:
    from builders.card.render import render_recipe_card
    from builders.diffusion.pin import pin_embedded
    from builders.registry import find_recipe

    for recipe in recipes:
        yield open_storage(folder), f"{recipe}.md", render_recipe_card(pin_embedded(find_recipe(recipe, {}))).encode()


@contextmanager
def _bytes_bar(num_bytes: int) -> Iterator[Callable[[int, int], object]]:
    """A progress bar in bytes that also counts files."""
    num_files = 0
    with progress(num_bytes, unit="B") as bar:

        def on_progress(files: int, size: int) -> None:
            nonlocal num_files
            num_files += files
            bar.set_postfix_str(f"{num_files:,} files", refresh=False)
            bar.update(size)

        yield on_progress
