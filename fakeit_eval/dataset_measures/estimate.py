"""An estimated number with its 95 % interval, and the difference of two numbers that were estimated on paired images.

Most standard errors come from influence functions: to first order, an estimate is its expectation plus the mean of one
term for each image, so its variance is the variance of these terms divided by the number of images. Measures of neighbors
have no such terms. They are measured on disjoint blocks of images, too, and the variance over blocks is divided by their
number. Two clones that share noise have correlated terms and blocks, whose differences give the interval of the difference.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Half the width of a 95 % interval in standard errors of a normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    value: float
    synthetic: NDArray[np.float64] | None = None
    """Influence (n,) of each synthetic image; None if the estimate is for the synthetic images as they are."""
    real: NDArray[np.float64] | None = None
    """Influence (m,) of each real image; None if the estimate is for the real images as they are."""
    blocks: NDArray[np.float64] | None = None
    """The measure (b,) on disjoint blocks of the images of both sets, where it has no influences."""
    low: float = -math.inf
    high: float = math.inf
    """The smallest and the largest value that is possible; intervals end there."""
    counted: int = 0
    """Number of images of which the value is the share that has a property; 0 if it is no share. Its interval is then
    Wilson's, or reaches from the lower end of Wilson's and that of the blocks to the upper ones."""
    fixed: tuple[float, float] | None = None
    """An interval that was found in another way."""

    @property
    def standard_error(self) -> float:
        """Standard error of the value to first order; NaN if there are fewer than two images or blocks."""
        if self.blocks is not None:
            return math.sqrt(_variance(self.blocks))
        return math.sqrt(sum(_variance(terms) for terms in (self.synthetic, self.real) if terms is not None))

    @property
    def interval(self) -> list[float] | None:
        """95 % interval [low, high]; None if there are too few images."""
        if self.fixed:
            return list(self.fixed)
        found = self._around(self.standard_error)
        if not self.counted or (self.blocks is not None and found is None):
            return found
        low, high = _wilson(self.value, self.counted)
        return [low, high] if self.blocks is None or found is None else [min(low, found[0]), max(high, found[1])]

    @property
    def quantile(self) -> float:
        """Half the width of the interval in standard errors: Student's for few blocks."""
        if self.blocks is None or len(self.blocks) < 2:
            return Z
        from scipy.stats import t

        return float(t.ppf(0.975, len(self.blocks) - 1))

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates on the same number of images, which are paired by their position."""
        is_paired_share = self.counted and self.synthetic is not None and other.synthetic is not None
        return Estimate(
            value=self.value - other.value,
            fixed=_bonett_price(self.synthetic, other.synthetic) if is_paired_share else None,  # type: ignore[arg-type]
            synthetic=_difference(self.synthetic, other.synthetic),
            real=_difference(self.real, other.real),
            blocks=_difference(self.blocks, other.blocks),
        )

    def fields(self) -> dict[str, Any]:
        """Value and interval for a result file, with six significant digits."""
        found = {"value": _rounded(self.value)}
        return {**found, "interval": [_rounded(end) for end in self.interval]} if self.interval else found

    def _around(self, error: float) -> list[float] | None:
        if not math.isfinite(error):
            return None
        return [max(self.low, self.value - self.quantile * error), min(self.high, self.value + self.quantile * error)]


def share(flags: NDArray[np.bool_]) -> Estimate:
    """The share of synthetic images (n,) that have a property."""
    terms = flags.astype(np.float64)
    return Estimate(value=float(terms.mean()), synthetic=terms, low=0.0, high=1.0, counted=len(terms))


def _wilson(value: float, counted: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(round(value * counted), counted).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _bonett_price(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of the difference of two shares of the same n images (Bonett and Price, 2012), which is no point at 0.

    Args:
        one: 1 or 0 of each image (n,).
        other: The same of its partner.
    """
    more, less = (float(((one - other) * sign > 0).sum() + 1) / (len(one) + 2) for sign in (1, -1))
    half = Z * math.sqrt((more + less - (more - less) ** 2) / (len(one) + 2))
    return more - less - half, more - less + half


def _variance(terms: NDArray[np.float64]) -> float:
    return float(terms.var(ddof=1)) / len(terms) if len(terms) > 1 else math.nan


def _difference(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if one is None or other is None else one - other


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
