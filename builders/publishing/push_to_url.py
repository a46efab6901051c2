"""Pushes a clone to a URL of fsspec, such as s3:// or hf://buckets/…; `push_to_hub.py` pushes to a repo of the Hub.

Invariant: only a clone without faults is pushed. Readers find the old clone, the new one, or none, never a mixture.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from builders.card.assets import CARD_ASSETS, card_asset_names
from builders.errors import UserError
from builders.format.manifest import FileEntry, Manifest, parse_manifest, read_manifest
from builders.format.names import CARD, MAKING, MANIFEST, PROMPTS, TIMM_INDEX
from builders.storage.base import Storage, open_storage
from builders.verification.verify_clone import verify_clone

PUSHING = f"{MAKING}/pushing.json"
"""File at the URL that records which clone is being pushed, and which files of an earlier clone stay."""
INDEX_FILES = (TIMM_INDEX, CARD, MANIFEST)
"""Written after the shards and their metadata; the manifest last."""

Progress = Callable[[int, int], object]
"""Called with the numbers of files and of bytes that have reached the URL since the last call."""


def checked_clone(root: str) -> tuple[Storage, Manifest]:
    """Opens a clone on this machine's disk and verifies it.

    Raises:
        UserError: the clone is unfinished or faulty, or is not on this machine.
    """
    storage = open_storage(root)
    manifest = read_manifest(storage)
    if not storage.is_local:
        raise UserError(f"'{root}' is not on this machine; only a clone on a disk can be pushed")
    faults = list(verify_clone(root))
    if faults:
        raise UserError(
            f"'{root}' has {len(faults)} faults, the first: {faults[0]}; see 'fakeit-build verify {root}', and repair it first"
        )
    return storage, manifest


def clone_files(storage: Storage, manifest: Manifest) -> list[FileEntry]:
    """Returns a clone's files in the order of a push: shards, metadata, prompts, card assets, index files (manifest last)."""
    prompts = [PROMPTS] if manifest.recipe.get("prompts") else []
    contents = [(name, storage.read(name)) for name in (*prompts, *card_asset_names(storage), *INDEX_FILES)]
    index = [FileEntry(name=n, num_bytes=len(c), sha256=hashlib.sha256(c).hexdigest()) for n, c in contents]
    return [*manifest.shards, *manifest.metadata, *index]


def push_to_url(root: str, url: str, on_progress: Progress = lambda num_files, num_bytes: None) -> Manifest:
    """Copies a clone to a URL, whole files only and the manifest last; a second call continues an interrupted one.

    It replaces an earlier clone of the same recipe at the URL, which has no manifest in the meantime.

    Raises:
        UserError: the clone has faults, or the URL holds something else or cannot be written.
    """
    source, manifest = checked_clone(root)
    target = open_storage(url)
    files = clone_files(source, manifest)
    if _is_there(target, manifest, files) and target.read(CARD) == source.read(CARD):
        on_progress(len(files), sum(file.num_bytes for file in files))
        return manifest
    _take(target, url, manifest)
    target.remove_temporaries()
    there = _sizes(target)
    for file in files:
        is_whole = there.get(file.name) == file.num_bytes
        if file.name == MANIFEST and (missing_names := _lacking(target, files[:-1])):
            raise UserError(
                f"'{missing_names}' is missing at '{url}' or has another size than when it was sent; run the push again"
            )
        if not is_whole or file.name in (*CARD_ASSETS, *INDEX_FILES):
            target.upload(Path(source.path(file.name)), file.name)
        on_progress(1, file.num_bytes)
    target.remove(PUSHING)
    return manifest


def _sizes(target: Storage) -> dict[str, int]:
    """Returns the bytes of each file at the target, except for those of unfinished work."""
    return {name: size for name, size in target.sizes().items() if not name.startswith(f"{MAKING}/")}


def _lacking(target: Storage, files: list[FileEntry]) -> str:
    """Returns the first file that the target lacks or holds in another size; "" if it holds them all."""
    there = _sizes(target)
    return next((file.name for file in files if there.get(file.name) != file.num_bytes), "")


def _is_there(target: Storage, manifest: Manifest, files: list[FileEntry]) -> bool:
    """Whether the target holds exactly this clone: all of its files and no others."""
    return (
        target.exists(MANIFEST)
        and not target.exists(PUSHING)
        and parse_manifest(target.read(MANIFEST), target.url(MANIFEST)).to_json() == manifest.to_json()
        and _sizes(target) == {file.name: file.num_bytes for file in files}
    )


def _take(target: Storage, url: str, manifest: Manifest) -> None:
    """Removes everything from the target except for files of this push, and those of an earlier clone that stay.

    Afterwards every shard and metadata file at the target is whole and belongs to this clone.

    Raises:
        UserError: the target holds something else, another push or an unfinished clone, or cannot be written to.
    """
    state = json.loads(target.read(PUSHING)) if target.exists(PUSHING) else None
    all_names = target.names("")
    names = [name for name in all_names if not name.startswith(f"{MAKING}/")]
    if set(all_names) - set(names) - {PUSHING}:
        raise UserError(f"a clone is being made at '{url}'; finish it with 'fakeit-build make', or choose another URL")
    if state and state["recipe_hash"] != manifest.recipe_hash:
        raise UserError(f"another clone is being pushed to '{url}'; finish that push first, or choose another URL")
    if state and state["digest"] == manifest.digest:
        kept = set(state["kept"])
    elif state:
        # The clone has grown since that push was interrupted, so the files at the target may be of its earlier state.
        kept = set()
    else:
        kept = _same_as_earlier(target, url, manifest)
    if not (state and state["digest"] == manifest.digest and state["is_cleared"]):
        marker = {"digest": manifest.digest, "recipe_hash": manifest.recipe_hash, "kept": sorted(kept)}
        try:
            target.write(PUSHING, json.dumps({**marker, "is_cleared": False}).encode())
        except FileNotFoundError:
            raise UserError(f"'{url}' cannot be written to; choose a URL such as s3://bucket/clone") from None
        for name in sorted(names, key=lambda name: name != MANIFEST):
            if name not in kept:
                target.remove(name)
        target.write(PUSHING, json.dumps({**marker, "is_cleared": True}).encode())


def _same_as_earlier(target: Storage, url: str, manifest: Manifest) -> set[str]:
    """Returns the shards and metadata that an earlier, finished clone at the target shares with this one.

    Raises:
        UserError: the target holds another clone, or no clone.
    """
    there = _sizes(target)
    if MANIFEST not in there:
        if there:
            raise UserError(f"'{url}' holds files but no clone ('{min(there)}'); choose an empty URL")
        return set()
    old = parse_manifest(target.read(MANIFEST), target.url(MANIFEST))
    if old.recipe_hash != manifest.recipe_hash:
        raise UserError(f"'{url}' holds a clone of another recipe ({old.recipe['name']}); choose another URL")
    before = {file.name: file.sha256 for file in (*old.shards, *old.metadata)}
    return {
        file.name
        for file in (*manifest.shards, *manifest.metadata)
        if before.get(file.name) == file.sha256 and there.get(file.name) == file.num_bytes
    }
