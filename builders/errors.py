"""The errors that people are meant to read: one sentence with the value and the way out, and an exit status."""

from builders.versions import DISTRIBUTION

MAX_CHOICES = 60
"""Choices that are listed; of longer lists the beginning."""


class ReadableError(Exception):
    """An error whose text is one sentence for the user; commands print it without a traceback."""

    exit_status = 2


class UserError(ReadableError):
    """A mistake in what the user asked for, or in what lies on disk."""


class ShardError(UserError):
    """Something is wrong with a shard's own images: another try ends the same, and all other shards can be made."""


class SampleNotFoundError(UserError):
    """A clone has no sample with a key."""


class OutOfMemoryError(UserError):
    """A batch does not fit into the memory of a GPU or of the machine."""


class UnreachableError(ReadableError):
    """The network or the server behind it fails; the same may work later, so the exit status asks for another start."""

    exit_status = 75


def first_line(error: BaseException) -> str:
    """An error's text to quote within a sentence: its first line without the full stop, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def suggest(name: str, choices: list[str]) -> str:
    """The end of such a sentence: the choices, the likeliest ones alone where any is close."""
    import difflib

    close = difflib.get_close_matches(name, choices, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f", … ({len(choices):,} in all)" if len(choices) > MAX_CHOICES else ""
    return f"choose from {', '.join(choices[:MAX_CHOICES])}{more}"


def missing_extra(module: str, extra: str) -> UserError:
    """The error for an import that failed because an optional part of the package is not installed."""
    return UserError(f"'{module}' is not installed, and this command needs it: pip install '{DISTRIBUTION}[{extra}]'")
