"""How every command ends: a user's mistake is one sentence on stderr and exit status 2, never a traceback."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from builders.format.errors import UserError, missing_extra
from builders.format.interrupts import interrupts_after_imports

OPTIONAL_MODULES = {
    "datasets", "diffusers", "transformers", "torch", "torchvision", "timm", "cv2", "sklearn", "optuna", "matplotlib",
    "huggingface_hub", "safetensors", "nltk", "scipy", "cachetools", "tokenizers", "imagehash", "faiss",
}  # fmt: skip


TOLD = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip
"""Errors of the file system that are no fault of ours."""


@contextmanager
def told_in_one_sentence(program: str, extra: str) -> Iterator[None]:
    """Runs a command; `extra` is the optional part of the package that it may miss."""
    try:
        with interrupts_after_imports():
            yield
    except UserError as error:
        _exit(program, str(error), 2)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPTIONAL_MODULES:
            raise
        _exit(program, str(missing_extra(error.name, extra)), 2)
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno not in TOLD:
            raise
        place = f" at '{error.filename}'" if error.filename else ""
        _exit(
            program, f"{error.strerror}{place}; what is finished is kept, run the command again when that is mended", 2
        )
    except KeyboardInterrupt:
        _exit(program, "interrupted; what is finished is kept, run the command again to go on", 130)


def _exit(program: str, sentence: str, status: int) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{program}: {sentence}\n")
    raise SystemExit(status)
