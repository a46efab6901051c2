"""The one error that people are meant to read: a sentence with the value and the way out; commands exit with status 2."""

from builders.format.distribution import DISTRIBUTION

MAX_CHOICES = 60
"""Choices that are listed; of longer lists the beginning."""


class UserError(Exception):
    """A mistake in what was asked, or in what lies on disk, told in one sentence."""


class ShardError(UserError):
    """What is wrong with a shard's own images; the others may still be made, and another try ends the same."""


class SampleNotFoundError(UserError):
    """A clone has no sample with a key."""


class UnreachableError(UserError):
    """The network or the server behind it, and no mistake: the same may work later."""


def near(name: str, choices: list[str]) -> str:
    """The end of such a sentence: the choices, the likeliest ones alone where any is close."""
    import difflib

    close = difflib.get_close_matches(name, choices, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f", … ({len(choices):,} in all)" if len(choices) > MAX_CHOICES else ""
    return f"choose from {', '.join(choices[:MAX_CHOICES])}{more}"


def missing_extra(module: str, extra: str) -> UserError:
    """For an import that failed because an optional part of the package is not installed."""
    return UserError(f"'{module}' is not installed, and this command needs it: pip install '{DISTRIBUTION}[{extra}]'")
