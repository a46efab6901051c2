"""How a worker computes images: what is free to change while a clone is being made, and is recorded for every shard.

Each of these was measured (benchmarks/results/2026-11-25-executions.md) to change no bytes, or to leave 99 % of images within
35 dB; what changes images more is a field of the recipe. The same execution, versions and hardware give the same bytes.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from builders.errors import UserError

AUTO = 0
"""The batch size that stands for "measure which is best on this card"."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    batch_size: int = 16
    """Images made together, or "auto": the smallest within 3 % of the best rate on the first worker's card."""
    num_threads: int = 1
    """CPU threads of a worker."""
    channels_last: bool = False
    """Memory format of the convolutions; faster on GPUs in 16 bits."""
    compile: bool = False
    """Whether the denoiser goes through torch.compile."""
    vae_slicing: bool = False
    """Whether images are decoded one by one, which takes less memory."""

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
    """The inverse of `dataclasses.asdict`; fields that this version does not know are passed over.

    Raises:
        UserError: a field is of another type.
    """
    names = [field.name for field in dataclasses.fields(Execution)]
    return Execution(**{name: value for name, value in fields.items() if name in names})


def override_execution(execution: Execution, overrides: dict[str, Any]) -> Execution:
    """The execution with some fields replaced; names that are no field, and None, are passed over."""
    names = [field.name for field in dataclasses.fields(Execution)]
    given = {name: value for name, value in overrides.items() if name in names and value is not None}
    return dataclasses.replace(execution, **given)
