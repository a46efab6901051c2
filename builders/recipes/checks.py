"""Reads a check, NAME[=MODEL][@REVISION]:LEAST: a score, and the least of it that an image must reach."""

import math
from dataclasses import dataclass
from pathlib import PurePath

from builders.errors import UserError

TAKEN = ("nsfw", "broken")
"""Verdicts that are not those of checks."""


@dataclass(frozen=True, kw_only=True)
class Check:
    kind: str
    """Name of a plug-in, or the path of a file with one (*.py)."""
    model: str = ""
    """Hub id or directory of the model that scores; "" for checks without one."""
    revision: str = ""
    """Commit of the model, or "sha256:…" of its directory or of the plug-in's file; "" before it is pinned."""
    least: float
    """Images with a lower score are generated again."""

    @property
    def name(self) -> str:
        """The check's name in samples and counts."""
        return PurePath(self.kind).stem if self.kind.endswith(".py") else self.kind

    def __str__(self) -> str:
        """The one spelling of a check, so that two spellings are one recipe."""
        model = f"={self.model}" if self.model else ""
        return f"{self.kind}{model}{'@' if self.revision else ''}{self.revision}:{self.least:.12g}"


def parse_check(text: str) -> Check:
    """Returns the check of a text such as "clip=openai/clip-vit-base-patch32:0.2".

    Raises:
        UserError: there is no name, or no finite number.
    """
    before, _, least = text.rpartition(":")
    try:
        number = float(least) + 0.0
    except ValueError:
        number = math.nan
    revision = ""
    if "@" in before and not before.endswith(".py"):
        before, _, revision = before.rpartition("@")
    # The path of a file may contain "=".
    kind, _, model = (before, "", "") if before.endswith(".py") else before.partition("=")
    found = Check(kind=kind, model=model, revision=revision, least=number)
    if not math.isfinite(number) or not found.name or found.name in TAKEN:
        raise UserError(f"check is '{text}', but must be NAME:LEAST or NAME=MODEL:LEAST, such as sharpness:50")
    return found


def least_scores(checks: tuple[str, ...]) -> dict[str, float]:
    """Returns the least score that an image must reach, by the name of the check."""
    return {check.name: check.least for check in map(parse_check, checks)}
