"""Reports the errors of every command: a user's mistake is one sentence on stderr and exit status 2, no traceback."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from builders.command_line.interrupts import interrupts_after_imports
from builders.errors import ReadableError, missing_extra

OPTIONAL_MODULES = {
    "datasets", "diffusers", "transformers", "torch", "torchvision", "timm", "cv2", "sklearn", "optuna", "matplotlib",
    "huggingface_hub", "safetensors", "nltk", "scipy", "cachetools", "tokenizers", "imagehash", "faiss",
}  # fmt: skip


FILE_SYSTEM_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip
"""Errors of the file system that are not bugs of this package."""


@contextmanager
def report_errors(program: str, extra: str) -> Iterator[None]:
    """Runs a command, and turns errors for the user into exits. `extra` is the extra that the command needs."""
    with interrupts_after_imports() as interrupts:
        try:
            yield
        except KeyboardInterrupt:
            _exit_interrupted(program)
        except Exception as error:
            if interrupts.is_interrupted:
                _exit_interrupted(program)
            _report(program, extra, error)
            raise


def _exit_interrupted(program: str) -> None:
    _exit(program, "interrupted; what is finished is kept, run the command again to continue", 130)


def _report(program: str, extra: str, error: Exception) -> None:
    """Ends the program with one sentence, unless the error is a bug of this package."""
    if isinstance(error, ReadableError):
        _exit(program, str(error), error.exit_status)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] in OPTIONAL_MODULES:
        _exit(program, str(missing_extra(error.name, extra)), 2)
    # The reader of the output, such as `head`, has closed the pipe.
    if isinstance(error, BrokenPipeError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise SystemExit(0) from None
    if isinstance(error, OSError) and error.errno in FILE_SYSTEM_ERRORS:
        where = f" at '{error.filename}'" if error.filename else ""
        _exit(program, f"{error.strerror}{where}; what is finished is kept, fix this and run the command again", 2)


def _exit(program: str, sentence: str, status: int) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{program}: {sentence}\n")
    raise SystemExit(status) from None
