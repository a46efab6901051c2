"""Which clone a URL means: its manifest, and the root at which all its files are of one version.

Invariant: what is read after opening belongs to the manifest that was read: a branch of the Hub is taken at its commit.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builders.format.errors import UserError, missing_extra
from builders.format.manifest import Manifest, parse_manifest, read_manifest
from builders.format.retrying import http_status, retrying
from builders.format.storage import NUM_ATTEMPTS_OF_CLIENTS, Storage

if TYPE_CHECKING:
    from builders.format.cache import ShardCache

COMMIT = re.compile("[0-9a-f]{40}")


def open_manifest(root: str, cache: "ShardCache | None") -> tuple[str, Manifest]:
    """The root to read from and the manifest there; where the network is gone, those that the cache saw last.

    Raises:
        UserError: there is no clone, or it cannot be reached and the cache has not seen it.
    """
    if cache is None or Storage(root).is_local:
        root = at_its_commit(root)
        return root, read_manifest(Storage(root))
    memory = cache.folder / "opened" / f"{hashlib.sha256(root.encode()).hexdigest()}.json"
    try:
        fixed = at_its_commit(root)
        manifest = read_manifest(Storage(fixed))
    except UserError:
        if not memory.exists():
            raise
        seen = json.loads(memory.read_bytes())
        return seen["root"], parse_manifest(seen["manifest"].encode(), root)
    _remember(memory, fixed, manifest)
    return fixed, manifest


def at_its_commit(root: str) -> str:
    """hf://datasets/user/name[@revision] with its revision's commit; any other root as it is.

    Raises:
        UserError: the Hub has no such data set or revision, or cannot be reached.
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
        attempts = NUM_ATTEMPTS_OF_CLIENTS["hf"]
        api = HfApi()
        info = retrying(api.repo_info, uri.id, repo_type=uri.type, revision=uri.revision, num_attempts=attempts)
    except Exception as error:  # the client has many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        advice = "check the name and that you are logged in" if http_status(error) in (401, 403, 404) else "run again"
        raise UserError(f"cannot open '{root}' ({reason}); {advice}") from None
    path = f"/{uri.path_in_repo}" if uri.path_in_repo else ""
    return f"hf://{uri.type}s/{uri.id}@{info.sha}{path}"


def _remember(memory: Path, root: str, manifest: Manifest) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    temporary = memory.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"root": root, "manifest": manifest.to_json().decode()}))
    os.replace(temporary, memory)
