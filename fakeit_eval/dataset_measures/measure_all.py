"""READ FIRST. Measures what a set of synthetic images is worth: the whole of `fakeit-eval data`.

match                   chooses the images of both sets that are compared
distances               squared distances of many images, as matrix products
frechet_distance        how far the distribution of features is from that of real images
kernel_distance         the same, without bias
neighbors               which images lie near which
approximate_neighbors   nearest images among more than 50,000
manifolds               precision, recall, density, coverage, from the neighbors
vendi_score             how many different images there are
pairwise_distance       how different the images of one class, or of one prompt, are
copies                  which images are nearer to a real one than real ones are to each other
estimate                a number with its interval; the difference of two
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.image_sets.base import Labels
from fakeit_eval.dataset_measures.approximate_neighbors import find_nearest_approximately
from fakeit_eval.dataset_measures.distances import Features
from fakeit_eval.dataset_measures.estimate import Estimate
from fakeit_eval.dataset_measures.frechet_distance import frechet_distance
from fakeit_eval.dataset_measures.kernel_distance import kernel_distance
from fakeit_eval.dataset_measures.manifolds import find_neighbors_of_blocks, manifold_measures
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, Nearest, Neighbors, find_nearest, find_neighbors
from fakeit_eval.dataset_measures.pairwise_distance import pairwise_distance
from fakeit_eval.dataset_measures.vendi_score import vendi_score

MAX_EXACT = 50_000
"""Images of each set of which all pairs are compared."""
MEANINGS = {
    "frechet_distance": "squared units of the features, at least 0; less is closer to the real images",
    "kernel_distance": "about 0 for equal distributions; less is closer to the real images",
    "precision": "share of synthetic images in the manifold of the real ones",
    "recall": "share of real images in the manifold of the synthetic ones",
    "density": "about 1 for equal distributions; how densely real images surround synthetic ones",
    "coverage": "share of real images with a synthetic one nearby",
    "vendi_score": "effective number of different images",
    "class_distance": "mean l2 distance of two images of a class, features of length 1",
    "prompt_distance": "mean l2 distance of two images of a prompt, features of length 1",
    "recognizability": "share of synthetic images that the classifier takes for their class",
    "copies": "share of synthetic images that are nearer to a real one than real ones are to each other",
}
"""All measures, in the order of tables, and what they say."""
COMPARED = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")
"""The measures that need real images, and equally many of both."""


@dataclass(kw_only=True)
class Measured:
    estimates: dict[str, Estimate] = field(default_factory=dict)
    """Measures of the synthetic images, by name."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a measure is not defined for these images, by its name."""
    neighbors: Neighbors | None = None
    compared: NDArray[np.int64] | None = None
    """Rows (c,) of the given pairs of images that `neighbors` is about; None if nothing was compared."""

    def merge(self, other: "Measured") -> None:
        """Adds the measures against real images to those without."""
        self.estimates |= other.estimates
        self.missing |= other.missing
        self.neighbors, self.compared = other.neighbors, other.compared

    def fields(self) -> dict[str, Any]:
        """The numbers, in the order of `MEANINGS`, for a result file, and why others are missing."""
        numbers = {name: self.estimates[name].fields() for name in MEANINGS if name in self.estimates}
        return {"numbers": numbers, **({"missing": self.missing} if self.missing else {})}


def compare_sets(synthetic: Features, real: Features) -> Measured:
    """Measures features (n, d) of synthetic images against (n, d) of real ones, both ordered by class.

    Of more than `MAX_EXACT`, that many are compared, of each class its share.
    """
    found = Measured()
    count, size = synthetic.shape
    if count <= COVERAGE_K:
        reason = f"needs more than {COVERAGE_K} images of each set, and has {count}"
        found.missing = dict.fromkeys(COMPARED, reason)
        return found
    found.compared = np.arange(count)
    if count > MAX_EXACT:
        found.compared = np.linspace(0, count - 1, MAX_EXACT).astype(np.int64)
        synthetic, real = synthetic[found.compared], real[found.compared]
    if count > size:
        found.estimates["frechet_distance"] = frechet_distance(synthetic.astype(np.float64), real.astype(np.float64))
    else:
        found.missing["frechet_distance"] = (
            f"needs more images than the {size} dimensions of a feature, and has {count}"
        )
    found.estimates["kernel_distance"] = kernel_distance(synthetic.astype(np.float64), real.astype(np.float64))
    found.neighbors = find_neighbors(synthetic, real)
    found.estimates |= manifold_measures(found.neighbors, find_neighbors_of_blocks(synthetic, real))
    return found


def nearest_real(synthetic: Features, real: Features) -> tuple[Nearest, float]:
    """Finds the nearest real image of each synthetic one, features (n, d) and (m, d), m at least 2.

    Returns:
        The nearest images, and the share of them that is exact: 1 up to `MAX_EXACT` images.
    """
    if max(len(synthetic), len(real)) > MAX_EXACT:
        return find_nearest_approximately(synthetic, real)
    return find_nearest(synthetic, real), 1.0


def measure_diversity(features: Features, labels: Labels, prompts: Labels | None) -> Measured:
    """Measures features (n, d) of images without a reference.

    Args:
        labels: Class (n,) of each image.
        prompts: Number (n,) of the prompt of each image; None if the images have none.
    """
    found = Measured()
    unit = features.astype(np.float64)
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(lengths > 0, lengths, 1)
    _try(found, "vendi_score", lambda: vendi_score(unit))
    _try(found, "class_distance", lambda: pairwise_distance(unit, labels)[0])
    if prompts is not None:
        _try(found, "prompt_distance", lambda: pairwise_distance(unit, prompts)[0])
    return found


def _try(found: Measured, name: str, measure: Callable[[], Estimate]) -> None:
    try:
        found.estimates[name] = measure()
    except ValueError as error:
        found.missing[name] = str(error)
