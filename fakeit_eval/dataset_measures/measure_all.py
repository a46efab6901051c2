"""READ FIRST. Measures what a set of synthetic images is worth: the whole of `fakeit-eval data`.

match                   chooses the images of both sets that are compared
frechet_distance        how far the distribution of features is from that of real images
kernel_distance         the same, without bias
neighbors               which images lie near which
approximate_neighbors   the same for more than 50,000 images
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

from fakeit_eval.dataset_measures.approximate_neighbors import (
    find_nearest_approximately,
    find_neighbors_approximately,
)
from fakeit_eval.dataset_measures.estimate import Estimate
from fakeit_eval.dataset_measures.frechet_distance import frechet_distance
from fakeit_eval.dataset_measures.kernel_distance import kernel_distance
from fakeit_eval.dataset_measures.manifolds import manifold_measures
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, Nearest, Neighbors, find_nearest, find_neighbors
from fakeit_eval.dataset_measures.pairwise_distance import pairwise_distance
from fakeit_eval.dataset_measures.vendi_score import vendi_score
from fakeit_eval.image_sets.base import Labels

Features = NDArray[np.float32]
MAX_EXACT = 50_000
"""Images up to which all pairs are compared."""
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
    recall_of_search: float = 1.0
    """Share of the exact neighbors that were found; 1 up to `MAX_EXACT` images."""

    def merge(self, other: "Measured") -> None:
        """Adds the measures against real images to those without."""
        self.estimates |= other.estimates
        self.missing |= other.missing
        self.neighbors, self.recall_of_search = other.neighbors, other.recall_of_search

    def fields(self) -> dict[str, Any]:
        """The numbers, in the order of `MEANINGS`, for a result file, and why others are missing."""
        numbers = {name: self.estimates[name].fields() for name in MEANINGS if name in self.estimates}
        return {"numbers": numbers, **({"missing": self.missing} if self.missing else {})}


def compare_sets(synthetic: Features, real: Features) -> Measured:
    """Measures features (n, d) of synthetic images against (n, d) of real ones."""
    found = Measured()
    count, size = synthetic.shape
    if count <= COVERAGE_K:
        reason = f"needs more than {COVERAGE_K} images of each set, and has {count}"
        found.missing = dict.fromkeys(COMPARED, reason)
        return found
    some = slice(MAX_EXACT)
    if count > size:
        found.estimates["frechet_distance"] = frechet_distance(synthetic.astype(np.float64), real.astype(np.float64))
    else:
        found.missing["frechet_distance"] = (
            f"needs more images than the {size} dimensions of a feature, and has {count}"
        )
    found.estimates["kernel_distance"] = kernel_distance(
        synthetic[some].astype(np.float64), real[some].astype(np.float64)
    )
    if count > MAX_EXACT:
        found.neighbors, found.recall_of_search = find_neighbors_approximately(synthetic, real)
    else:
        found.neighbors = find_neighbors(synthetic, real)
    found.estimates |= manifold_measures(found.neighbors)
    return found


def nearest_real(synthetic: Features, real: Features) -> Nearest | None:
    """The nearest real image of each synthetic one, features (n, d) and (m, d); None with fewer than two real images."""
    if len(real) < 2:
        return None
    is_large = max(len(synthetic), len(real)) > MAX_EXACT
    return (find_nearest_approximately if is_large else find_nearest)(synthetic, real)


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
