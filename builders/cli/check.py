"""`fakeit-build verify`, `redo` and `compare`: check a clone against its manifest, its recipe, and another clone."""

import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from builders.cli.options import ClonePath
from builders.command_line.progress import progress
from builders.errors import UserError
from builders.storage.base import open_storage


def verify(clone: ClonePath, /, deep: bool = False, workers: int = os.cpu_count() or 1) -> None:
    """Check a clone: counts, checksums, schema, labels, plan, images. Prints a line per fault; exit status 1 if any.

    Args:
        clone: Directory or URL of the clone.
        deep: Decode every image, too.
        workers: Worker processes on this machine.
    """
    from builders.format.manifest import read_manifest
    from builders.verification.verify_clone import verify_clone

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


def redo(
    clone: ClonePath,
    key: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KEY")],
    /,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    model: str | None = None,
    adapters: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="adapter")] = (),
) -> None:
    """Generate one image again from its own metadata, and say whether it is the same. Exit status 1 if it is not.

    Args:
        clone: Directory or URL of the clone.
        key: Key of the image, such as n01558993_00000007.
        output: File to write the new image to.
        model: Directory of the model, if it did not come from the Hub.
        adapters: The same for an adapter: its file, with =WEIGHT if that is not 1. Give all adapters, in their order.
    """
    from builders.format.open_clone import open_clone
    from builders.verification.regenerate import regenerate

    redone = regenerate(open_clone(clone), key, model, adapters)
    if output:
        output.write_bytes(redone.image)
    print(f"{key}: {redone}")
    if not redone.is_identical:
        raise SystemExit(1)


def compare(
    first: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")],
    second: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="B")],
    /,
    max_decoded: int = 1000,
) -> None:
    """Say how two clones differ: in settings, and image by image for those with the same key.

    Args:
        first: Directory or URL of a clone.
        second: Directory or URL of another.
        max_decoded: Maximum number of pairs whose pixels are compared.
    """
    from builders.viewing.compare import compare_clones, describe

    if max_decoded < 0:
        raise UserError(f"--max-decoded {max_decoded} is no number of pairs; give 0 or more")
    print("\n".join(describe(compare_clones(first, second, max_decoded))))
