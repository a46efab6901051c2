"""Errors for the user: each has a message of one sentence, with the value and the way out, and an exit status."""

from builders.versions import DISTRIBUTION

MAX_CHOICES = 60
"""Maximum number of choices that a message lists; a longer list is cut."""


class ReadableError(Exception):
    """An error whose text is one sentence for the user. Commands print it without a traceback."""

    exit_status = 2


class UserError(ReadableError):
    """A mistake in the user's arguments, or in files on disk."""


class ShardError(UserError):
    """A shard's own images cannot be made. A retry would fail the same way, but other shards are not affected."""


class SampleNotFoundError(UserError):
    """The clone has no sample with the requested key."""


class OutOfMemoryError(UserError):
    """A batch does not fit into the memory of the GPU or of the machine."""


class UnreachableError(ReadableError):
    """The network or a remote server fails. A retry may succeed later, so the exit status requests another start."""

    exit_status = 75


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library says that memory (of the GPU or the machine) does not suffice."""
    words = ("allocate memory", "out of memory", "ALLOC_FAILED")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(w in str(error) for w in words)
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text without its full stop, or the error's type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def suggest(name: str, choices: list[str]) -> str:
    """Returns the last clause of an error message: the choices close to `name` if there are any, else all choices."""
    import difflib

    close = difflib.get_close_matches(name, choices, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f", … ({len(choices):,} in all)" if len(choices) > MAX_CHOICES else ""
    return f"choose from {', '.join(choices[:MAX_CHOICES])}{more}"


def missing_extra(module: str, extra: str) -> UserError:
    """Returns the error for an import that failed because an optional extra of this package is not installed."""
    return UserError(f"'{module}' is not installed, and this command needs it: pip install '{DISTRIBUTION}[{extra}]'")
