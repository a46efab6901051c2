"""A source of real images: class folders. Each file is read and decoded once before a clone is made from them.

All broken files are therefore reported before the clone is begun, and the clone is pinned to the content of the files.
The results are kept in the user's cache: a file with unchanged size, times and inode is not read again on this machine.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builders.command_line.progress import progress
from builders.errors import UserError
from builders.images.folders import ClassFolders, list_class_folders, readable
from builders.images.read import FORMATS, read_image, read_image_header
from builders.storage.cache_folder import cache_folder

VERSION = "2"
MAX_NAMED = 100
"""Number of broken files that an error names. If there are more, it also names a file that lists all of them."""
FILES_BETWEEN_NOTES = 20_000
"""Number of files after which the results so far are saved."""
FILES_AHEAD = 256
"""Number of files that wait in the thread pool, so that a million files take little memory."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    path: str
    """Path below the root."""
    sha256: str
    problem: str
    """Why the file cannot be read; "" if it can."""


@dataclass(frozen=True)
class Source:
    folders: ClassFolders
    files: dict[str, SourceFile]
    """Files by their path below the root."""

    @property
    def root(self) -> str:
        return self.folders.root

    @cached_property
    def broken(self) -> list[SourceFile]:
        return [file for file in self.files.values() if file.problem]

    @cached_property
    def images(self) -> dict[str, list[SourceFile]]:
        """Readable images of each class. Classes are named by their folders, in sorted order."""
        found = {name: [self.files[path] for path in paths] for name, paths in self.folders.images.items()}
        return {name: [file for file in files if not file.problem] for name, files in found.items()}

    @cached_property
    def digest(self) -> str:
        """ "sha256:…" over the paths and contents of the readable images, which identifies this set of images."""
        total = hashlib.sha256()
        for file in (file for files in self.images.values() for file in files):
            total.update(os.fsencode(file.path) + b"\t" + file.sha256.encode() + b"\n")
        return "sha256:" + total.hexdigest()

    def check_broken(self, allowed_share: float) -> None:
        """Checks that the share of broken files is at most `allowed_share`; 0 allows none.

        Raises:
            UserError: the share is larger, or a class has no readable image.
        """
        share = len(self.broken) / len(self.files)
        if self.broken and share > allowed_share:
            way_out = (
                f"which is more than the {allowed_share:.2%} of --skip-broken; repair them or give a larger share"
                if allowed_share
                else "repair or remove them, or give --skip-broken to leave them out"
            )
            raise UserError(
                f"{len(self.broken):,} of {len(self.files):,} images in '{self.root}' cannot be read ({share:.2%}), "
                f"{way_out}:{self._named_broken()}"
            )
        empty = next((name for name, files in self.images.items() if not files), None)
        if empty is not None:
            raise UserError(f"no image of class folder '{os.path.join(self.root, empty)}' can be read; remove it")

    def _named_broken(self) -> str:
        """Returns a line for each broken file. If there are very many, the last line names a file with all of them."""
        lines = [f"'{os.path.join(self.root, readable(file.path))}' ({file.problem})" for file in self.broken]
        if len(lines) > MAX_NAMED:
            listing = _record(self.root).with_suffix(".broken.txt")
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
            lines = [*lines[:MAX_NAMED], f"and {len(lines) - MAX_NAMED:,} more; all are listed in '{listing}'"]
        return "".join(f"\n  {line}" for line in lines)


def read_source(root: str) -> Source:
    """Lists class folders, and reads every image that this machine has not read yet.

    Raises:
        UserError: there are no class folders, or one holds no image.
    """
    folders = list_class_folders(root)
    paths = [path for paths in folders.images.values() for path in paths]
    states = [_state(folders.path(path)) for path in paths]
    known = _read_record(root)
    new = [path for path, state in zip(paths, states, strict=True) if (path, state) not in known]
    read: dict[str, tuple[str, str]] = {}
    try:
        for path, result in zip(new, _read_all([folders.path(path) for path in new]), strict=True):
            read[path] = result
            if len(read) % FILES_BETWEEN_NOTES == 0:
                _write_record(root, paths, states, known, read)
    finally:
        # Saves the results after Ctrl-C, too.
        if read:
            _write_record(root, paths, states, known, read)
    found = {path: read.get(path) or (known[path, state], "") for path, state in zip(paths, states, strict=True)}
    files = [SourceFile(path=path, sha256=found[path][0], problem=found[path][1]) for path in paths]
    source = Source(folders, {file.path: file for file in files})
    _keep(source)
    return source


def pinned_images(root: str, digest: str) -> dict[str, list[SourceFile]]:
    """Returns the images that a source had when it was pinned, for each class by its folder's name.

    If an image changes while a clone is made, the change is thus noticed, and the other images keep their numbers.

    Raises:
        UserError: this machine has not read the pinned source, and the images that are there now are others.
    """
    try:
        rows = pq.read_table(_pinned(digest)).to_pydict()
    except (OSError, pa.ArrowException):
        source = read_source(root)
        if source.digest != digest:
            raise UserError(
                f"the images in '{root}' are {source.digest}, but the recipe was made with {digest}; "
                "give --source the images that it was made with, or make another clone"
            ) from None
        return source.images
    found: dict[str, list[SourceFile]] = {}
    for content, sha256 in zip(rows["path"], rows["sha256"], strict=True):
        path = os.fsdecode(content)
        folder = readable(path.partition(os.sep)[0])
        found.setdefault(folder, []).append(SourceFile(path=path, sha256=sha256, problem=""))
    return found


def _keep(source: Source) -> None:
    """Saves the list that `pinned_images` reads, once for each digest."""
    path = _pinned(source.digest)
    if not path.exists():
        files = [file for files in source.images.values() for file in files]
        columns = {
            "path": pa.array([os.fsencode(file.path) for file in files], pa.binary()),
            "sha256": [file.sha256 for file in files],
        }
        _write(path, pa.table(columns))


def _pinned(digest: str) -> Path:
    return cache_folder() / "sources" / f"{digest.replace(':', '-')}.parquet"


def _write(path: Path, table: pa.Table) -> None:
    """Saves a table in the cache. If the cache cannot be written, the source will be read again instead."""
    scratch = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, scratch, compression="zstd")
        scratch.replace(path)
    with contextlib.suppress(OSError):
        scratch.unlink(missing_ok=True)


def _read_all(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the sha256 and the problem of each file, in the order of `paths`."""
    if not paths:
        return
    with progress(len(paths), desc="reading source") as bar, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for batch in _batches(paths):
            for result in pool.map(_read_file, batch):
                bar.update()
                yield result


def _batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    return (paths[start : start + FILES_AHEAD] for start in range(0, len(paths), FILES_AHEAD))


def _read_file(path: str) -> tuple[str, str]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return "", error.strerror or type(error).__name__
    try:
        read_image_header(content, FORMATS)
        read_image(content)
    except ValueError as error:
        return hashlib.sha256(content).hexdigest(), str(error)
    return hashlib.sha256(content).hexdigest(), ""


def _state(path: str) -> str:
    """Returns a text that changes whenever the content of a file changes.

    A change that keeps size and modification time still moves `st_ctime`.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _record(root: str) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    return cache_folder() / "sources" / f"{digest}.parquet"


def _read_record(root: str) -> dict[tuple[str, str], str]:
    """Returns the sha256 of each file that could be read before, by path and state.

    Broken files are not among them: they are read again, since newer libraries may be able to.
    """
    try:
        table = pq.read_table(_record(root))
        if (table.schema.metadata or {}).get(b"version") != VERSION.encode():
            return {}
        rows = zip(*(table[name].to_pylist() for name in ("path", "state", "sha256")), strict=True)
        return {(os.fsdecode(path), state): sha256 for path, state, sha256 in rows}
    except (OSError, KeyError, pa.ArrowException):
        return {}


def _write_record(
    root: str,
    paths: Iterable[str],
    states: Iterable[str],
    known: dict[tuple[str, str], str],
    read: dict[str, tuple[str, str]],
) -> None:
    rows = []
    for path, state in zip(paths, states, strict=True):
        sha256, problem = read.get(path) or (known.get((path, state), ""), "")
        if sha256 and not problem:
            rows.append((os.fsencode(path), state, sha256))
    columns = {
        "path": pa.array([path for path, _, _ in rows], pa.binary()),
        "state": pa.array([state for _, state, _ in rows], pa.string()),
        "sha256": pa.array([sha256 for _, _, sha256 in rows], pa.string()),
    }
    _write(_record(root), pa.table(columns).replace_schema_metadata({"version": VERSION}))
