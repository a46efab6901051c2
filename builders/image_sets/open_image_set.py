"""Opens images of any kind: a clone or its URL, class folders, an archive, or hub:user/name@split."""

from pathlib import Path

from builders.errors import UserError
from builders.format.names import MAKING, MANIFEST
from builders.format.shard_cache import ShardCache
from builders.image_sets.archives import is_archive, open_archive
from builders.image_sets.base import ImageSet
from builders.image_sets.clones import open_clone_images
from builders.image_sets.files import open_folder
from builders.image_sets.hub import PREFIX, open_hub


def open_image_set(spec: str, name: str = "", cache: ShardCache | None = None) -> ImageSet:
    """Opens the images at a path or URL, or of a dataset of the Hub.

    Args:
        name: Name of an archive or of class folders in tables of results; by default the file's or the folder's name.
        cache: Cache of a remote clone's shards; by default the user's.

    Raises:
        UserError: there is nothing of these kinds, or it cannot be read.
    """
    path = Path(spec)
    if spec.startswith(PREFIX):
        return open_hub(spec)
    if "://" in spec or (path / MANIFEST).is_file() or (path / MAKING).is_dir():
        return open_clone_images(spec, cache)
    if path.is_file() and is_archive(spec):
        return open_archive(spec, name)
    if path.is_dir():
        return open_folder(spec, name)
    raise UserError(
        f"there is no clone, no directory of class folders and no archive (.tar, .tar.gz, .zip) at '{spec}'; "
        "check the name, or write hub:user/name@split for a dataset of the Hub"
    )
