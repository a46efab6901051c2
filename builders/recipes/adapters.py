"""Reads an adapter, ID[@REVISION][=WEIGHT]: a LoRA that changes what a model generates, by a weight."""

import math
from dataclasses import dataclass

from builders.errors import UserError


@dataclass(frozen=True)
class Adapter:
    id: str
    """USER/NAME on the Hub, USER/NAME/FILE for one of several files there, or a file or folder on this machine."""
    revision: str = ""
    """Commit on the Hub, or "sha256:…" of the file; "" before it is pinned."""
    weight: float = 1.0
    """Factor of what the adapter adds; 0 gives the images of the model without it."""

    def __str__(self) -> str:
        """The one spelling of an adapter, so that two spellings are one recipe."""
        return f"{self.id}{'@' if self.revision else ''}{self.revision}={self.weight:.12g}"


def parse_adapter(text: str) -> Adapter:
    """Returns the adapter of a text such as "user/lora=0.8".

    Raises:
        UserError: there is no id, or the weight is not finite.
    """
    before, equals, weight = text.rpartition("=")
    found = _number(weight) if equals else None
    if found is None:
        # A path may contain "=".
        before, found = text, 1.0
    name, _, revision = before.rpartition("@") if "@" in before else (before, "", "")
    if not name or not math.isfinite(found):
        raise UserError(
            f"adapter is '{text}', but must be ID, ID@REVISION or either with =WEIGHT, such as user/lora=0.8"
        )
    return Adapter(name, revision, found + 0.0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
