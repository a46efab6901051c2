"""What identifies the weights of a model: the content of a directory, or a commit on the Hub."""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from builders.errors import UserError
from builders.storage.hub_error import hub_error

SUFFIXES = (".json", ".txt", ".safetensors", ".model")
COMMIT = re.compile("[0-9a-f]{40}")


@lru_cache(maxsize=4)
def directory_digest(directory: str) -> str:
    """Returns "sha256:…" over the names and contents of a directory's json, txt, safetensors and model files.

    A model's card is left out.
    """
    return files_digest(Path(directory), sorted(Path(directory).rglob("*")))


def files_digest(directory: Path, files: Iterable[Path]) -> str:
    """Returns the same over some files of a directory, in this order."""
    total = hashlib.sha256()
    for path in files:
        if path.suffix in SUFFIXES:
            with path.open("rb") as file:
                total.update(f"{path.relative_to(directory).as_posix()}\n".encode())
                total.update(hashlib.file_digest(file, "sha256").digest())
    return "sha256:" + total.hexdigest()


def file_digest(path: Path) -> str:
    """Returns "sha256:…" over the bytes of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def hub_commit(model: str, revision: str, option: str = "--model") -> str:
    """Returns the commit that a branch, a tag or "" stands for on the Hub; a full commit stays as it is.

    Args:
        option: The command's option for the model, which messages name.

    Raises:
        UserError: the revision is that of a directory, or the Hub has no such model.
        UnreachableError: the Hub does not answer.
    """
    if COMMIT.fullmatch(revision):
        return revision
    if revision.startswith("sha256:"):
        raise UserError(f"model '{model}' was read from a local directory; give {option} that directory")
    import huggingface_hub

    try:
        commit = huggingface_hub.model_info(model, revision=revision or None).sha
    except Exception as error:  # the client raises all kinds of errors without a network or for an odd name
        what, extra = f"cannot look up model '{model}' on the Hub", ", or --revision a full commit"
        way_out = f"give {option} a directory{extra if option == '--model' else ''}"
        raise hub_error(what, error, model, way_out) from None
    return str(commit)
