"""One image to be made, as a plan says it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    key: str
    label: int
    wnid: str
    class_name: str
    index: int
    attempt: int
    """0, or how often another seed took the place of one whose image was flagged or broken."""
    seed: int
    background: str
    prompt: str
