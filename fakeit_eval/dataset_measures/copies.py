"""Copies: synthetic images that are nearer to a real one than real images are to each other.

The threshold is a quantile of the distance from a real image to the nearest other real one. So about that share of honest
images is reported, too; they are to be looked at, not counted as copies. A real set with many near-duplicates has a low
threshold and hides copies.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FALSE_ALARMS = 0.0025
"""Share of real images that are nearer than the threshold to another one, if these are no duplicates themselves."""
MIN_REAL = round(1 / FALSE_ALARMS)
"""Real images below which that quantile cannot be estimated."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    threshold: float
    """Distance up to which an image counts as a copy."""
    is_copy: NDArray[np.bool_]
    """Whether each synthetic image (n,) is that near to a real one."""


def find_copies(nearest_real_distance: NDArray[np.float64], real_spacing: NDArray[np.float64]) -> Copies:
    """Compares the distance (n,) of synthetic images to the nearest real one with the spacing (m,) of real images.

    Args:
        real_spacing: Distance of each held-out or other real image to the nearest one of the reference.
    """
    threshold = float(np.quantile(real_spacing, FALSE_ALARMS))
    return Copies(threshold=threshold, is_copy=nearest_real_distance <= threshold)
