"""An estimated number with its 95 % interval, and the difference of two numbers that were estimated on paired images.

The standard errors come from influence functions: to first order, an estimate is its expectation plus the mean of one
term for each image, so its variance is the variance of these terms divided by the number of images. The terms of two
clones that share noise are correlated image by image. Their differences therefore give the interval of the difference.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Half the width of a 95 % interval in standard errors."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    value: float
    synthetic: NDArray[np.float64] | None = None
    """Influence (n,) of each synthetic image; None if the estimate is for the synthetic images as they are."""
    real: NDArray[np.float64] | None = None
    """Influence (m,) of each real image; None if the estimate is for the real images as they are."""
    low: float = -math.inf
    high: float = math.inf
    """The smallest and the largest value that is possible; intervals end there."""
    is_share: bool = False
    """Whether the value is a share of images, of which each counts or does not; it then has Wilson's interval."""

    @property
    def standard_error(self) -> float:
        """Standard error of the value to first order; NaN if there are fewer than two images."""
        return math.sqrt(sum(_variance(terms) for terms in (self.synthetic, self.real) if terms is not None))

    @property
    def interval(self) -> list[float] | None:
        """95 % interval [low, high]; None if there are fewer than two images."""
        counted = self.synthetic if self.synthetic is not None else self.real
        if self.is_share and counted is not None:
            from scipy.stats import binomtest

            found = binomtest(round(self.value * len(counted)), len(counted)).proportion_ci(method="wilson")
            return [float(found.low), float(found.high)]
        return self._around(self.standard_error)

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates on the same number of images, which are paired by their position."""
        return Estimate(
            value=self.value - other.value,
            synthetic=_difference(self.synthetic, other.synthetic),
            real=_difference(self.real, other.real),
        )

    def fields(self) -> dict[str, Any]:
        """Value and interval for a result file, with six significant digits."""
        found = {"value": _rounded(self.value)}
        return {**found, "interval": [_rounded(end) for end in self.interval]} if self.interval else found

    def _around(self, error: float) -> list[float] | None:
        if not math.isfinite(error):
            return None
        return [max(self.low, self.value - Z * error), min(self.high, self.value + Z * error)]


def share(flags: NDArray[np.bool_], *, of_real: bool = False) -> Estimate:
    """The share of images (n,) that have a property.

    Args:
        of_real: Whether the images are the real ones.
    """
    terms = flags.astype(np.float64)
    name = "real" if of_real else "synthetic"
    return Estimate(value=float(terms.mean()), low=0.0, high=1.0, is_share=True, **{name: terms})


def _variance(terms: NDArray[np.float64]) -> float:
    return float(terms.var(ddof=1)) / len(terms) if len(terms) > 1 else math.nan


def _difference(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if one is None or other is None else one - other


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
