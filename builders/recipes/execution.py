"""How a worker computes images: settings that may change while a clone is being made, recorded for every shard.

Each setting was measured (benchmarks/results/2026-11-25-executions.md) to change no bytes, or to keep 99 % of images at
35 dB or more. A setting that changes images more is a field of the recipe.

Invariant: the same execution, versions and hardware give the same bytes.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from builders.errors import UserError

AUTO = 0
"""The batch size that stands for "measure which one is best on this GPU"."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    batch_size: int = 16
    """Images per batch, or "auto": the smallest batch within 3 % of the best rate on the first worker's GPU."""
    num_threads: int = 1
    """CPU threads of each worker."""
    channels_last: bool = False
    """Use the channels-last memory format in convolutions, which is faster on GPUs in 16 bits."""
    compile: bool = False
    """Compile the denoiser with torch.compile."""
    vae_slicing: bool = False
    """Decode images one by one, which takes less memory."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if type(getattr(self, field.name)) is not field.type:
                raise UserError(f"{field.name} is {getattr(self, field.name)!r}, but must be of type {field.type}")
        if self.batch_size < AUTO:
            raise UserError(f"batch_size is {self.batch_size}, but must be at least 1, or auto")
        if self.num_threads < 1:
            raise UserError(f"num_threads is {self.num_threads}, but must be at least 1")

    @property
    def is_auto(self) -> bool:
        return self.batch_size == AUTO


def execution_from_dict(fields: dict[str, Any]) -> Execution:
    """Reads an execution from the dict of `dataclasses.asdict`; ignores fields that this version does not know.

    Raises:
        UserError: a field has another type.
    """
    names = [field.name for field in dataclasses.fields(Execution)]
    return Execution(**{name: value for name, value in fields.items() if name in names})


def override_execution(execution: Execution, overrides: dict[str, Any]) -> Execution:
    """Returns the execution with some fields replaced; ignores None, and names that are not its fields."""
    names = [field.name for field in dataclasses.fields(Execution)]
    given = {name: value for name, value in overrides.items() if name in names and value is not None}
    return dataclasses.replace(execution, **given)
