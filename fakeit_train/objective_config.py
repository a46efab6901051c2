"""The settings of single objectives.

The defaults of self-distillation are DINO's (Caron et al., 2021) for ImageNet; those of contrast are SupCon's.
"""

import math
from dataclasses import dataclass

from builders.errors import UserError


def check_counts(where: str, config: object, **lowest: int) -> None:
    """Checks that whole numbers are not below their lowest value."""
    for name, low in lowest.items():
        if getattr(config, name) < low:
            raise UserError(f"{where}.{name} is {getattr(config, name)}, but must be at least {low}")


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    temperature: float = 0.1
    """Divisor of the cosines; lower values weigh the most similar images more."""
    projector_layers: int = 2
    """Number of layers of the projector, which is not exported."""
    projector_width: int = 2048
    """Width of the projector's hidden layers."""
    embedding_size: int = 128
    """Length of the projector's output."""
    queue: int = 0
    """Number of crops of earlier batches to compare with besides; 0 for none."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise UserError(f"contrast.temperature is {self.temperature}, but must be above 0")
        check_counts("contrast", self, projector_layers=1, projector_width=1, embedding_size=1, queue=0)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    student_temperature: float = 0.1
    """Temperature of the student's distribution over prototypes."""
    teacher_temperature: float = 0.07
    """Temperature of the teacher's distribution; lower than the student's, so that it does not become uniform."""
    teacher_temperature_start: float = 0.04
    """Temperature of the teacher's distribution at the first step, from where it rises or falls linearly."""
    temperature_warm_up: float = 0.3
    """Fraction of the steps until the teacher's temperature is the final one."""
    teacher_momentum: float = 0.996
    """Decay of the teacher's average at the first step; it rises to 1 as a cosine."""
    center_momentum: float = 0.9
    """Decay of the average of the teacher's logits, which are centered by it."""
    projector_layers: int = 3
    """Number of layers of the projector, which is not exported."""
    projector_width: int = 2048
    """Width of the projector's hidden layers."""
    embedding_size: int = 256
    """Length of the projector's output, which is compared with the prototypes."""
    num_prototypes: int = 65536
    """Number of prototypes."""
    frozen_prototypes: float = 0.01
    """Fraction of the steps before prototypes are learned."""

    def __post_init__(self) -> None:
        for name in ("student_temperature", "teacher_temperature", "teacher_temperature_start"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"distillation.{name} is {getattr(self, name)}, but must be above 0")
        for name in ("temperature_warm_up", "teacher_momentum", "center_momentum", "frozen_prototypes"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"distillation.{name} is {getattr(self, name)}, but must be from 0 to 1")
        check_counts("distillation", self, projector_layers=1, projector_width=1, embedding_size=1, num_prototypes=2)
