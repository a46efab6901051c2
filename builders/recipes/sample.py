"""One planned image: what a plan says of it before it is generated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    key: str
    label: int
    wnid: str
    class_name: str
    index: int
    attempt: int
    """0 for the first seed; 1 more for each seed that was rejected because its image was flagged or broken."""
    seed: int
    background: str
    prompt: str
    prompt_index: int = -1
    """Row of the prompt in the clone's `prompts.parquet`; -1 where the recipe has one template."""
