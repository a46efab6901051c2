"""Resolves the URL of a clone: reads its manifest, and finds the root at which all its files are of one version.

Invariant: everything that is read after opening belongs to the manifest that was read. A branch on the Hub is
therefore replaced by its commit.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import ReadableError, UnreachableError, UserError, first_line, missing_extra
from builders.format.manifest import Manifest, parse_manifest, read_manifest
from builders.storage.base import open_storage
from builders.storage.retry import is_offline, is_transient, retry
from builders.storage.stores import NUM_ATTEMPTS

if TYPE_CHECKING:
    from builders.format.shard_cache import ShardCache

ATTEMPTS_WHERE_SEEN = 3
COMMIT = re.compile("[0-9a-f]{40}")


def open_manifest(root: str, cache: "ShardCache | None") -> tuple[str, Manifest]:
    """Returns the root to read from and the manifest there. Without a network, both are what the cache saw last.

    Raises:
        UserError: there is no clone, or its manifest is broken.
        UnreachableError: the clone cannot be reached, and the cache has not seen it.
    """
    if cache is None or open_storage(root).is_local:
        root = at_its_commit(root)
        return root, read_manifest(open_storage(root))
    memory = _Memory(cache.folder, root)
    seen = memory.read()
    # Users who are offline should not wait long for what the cache has.
    attempts = ATTEMPTS_WHERE_SEEN if seen else None
    try:
        fixed = at_its_commit(root, attempts)
        manifest = read_manifest(open_storage(fixed, attempts))
    except UnreachableError as error:
        if seen is None:
            raise
        warnings.warn(f"{error}; reading the version that the cache saw last", stacklevel=3)
        return seen
    memory.write(fixed, manifest)
    return fixed, manifest


def at_its_commit(root: str, num_attempts: int | None = None) -> str:
    """Returns hf://datasets/user/name[@revision] with the commit of its revision; any other root is returned unchanged.

    Raises:
        UserError: the Hub has no such dataset or revision.
        UnreachableError: the Hub cannot be reached.
    """
    if not root.startswith("hf://") or root.startswith("hf://buckets/"):
        return root
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import parse_hf_uri
    except ModuleNotFoundError:
        raise missing_extra("huggingface_hub", "hub") from None
    try:
        uri = parse_hf_uri(root)
        if uri.revision and COMMIT.fullmatch(uri.revision):
            return root
        attempts = num_attempts or NUM_ATTEMPTS
        api = HfApi()
        info = retry(api.repo_info, uri.id, repo_type=uri.type, revision=uri.revision, num_attempts=attempts)
    except Exception as error:
        # The client raises exceptions of many kinds.
        if is_transient(error) or is_offline(error):
            raise UnreachableError(
                f"cannot open '{root}' ({first_line(error)}); run again when the Hub can be reached"
            ) from None
        raise UserError(
            f"cannot open '{root}' ({first_line(error)}); check the name (a '/' in a revision is written %2F), "
            "and that you are logged in"
        ) from None
    path = f"/{uri.path_in_repo}" if uri.path_in_repo else ""
    return f"hf://{uri.type}s/{uri.id}@{info.sha}{path}"


@dataclass(frozen=True)
class _Memory:
    """Keeps the root and the manifest that a cache saw last for a URL; failing to keep them is not an error."""

    folder: Path
    root: str

    @property
    def _path(self) -> Path:
        return self.folder / "opened" / f"{hashlib.sha256(self.root.encode()).hexdigest()}.json"

    def read(self) -> tuple[str, Manifest] | None:
        try:
            seen = json.loads(self._path.read_bytes())
            return str(seen["root"]), parse_manifest(seen["manifest"].encode(), self.root)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ReadableError):
            return None

    def write(self, root: str, manifest: Manifest) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"root": root, "manifest": manifest.to_json().decode()}))
            os.replace(temporary, self._path)
