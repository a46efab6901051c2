"""The measures of a set of features, l2-normalised as the paper's text says, or as its caption does.

Each measure is a module of this folder with `measure(features, labels)`.
"""

import importlib
import math

from builders.errors import UserError
from fakeit_eval.features.chunks import Features, Labels
from fakeit_eval.features.rows import UnitRows

DISTANCES = ("intra_class_distance", "intra_class_distance_per_class")
"""Two readings of "the average distance between samples from the same class": over pairs, and over classes."""
MEASURES = ("sparsity", *DISTANCES, "feature_redundancy", "coding_length")
SHOWN = ("sparsity", "intra_class_distance", "feature_redundancy", "coding_length")
"""Those of the paper's Fig. 1."""
NORMALIZATIONS = {"text": MEASURES, "caption": ("sparsity", *DISTANCES)}
"""Which measures see normalised features: all of them (supplementary, section 3.3), or the first two of Fig. 1's caption."""


def check_normalization(normalization: str) -> None:
    """Before anything is measured.

    Raises:
        UserError: there is no such reading.
    """
    if normalization not in NORMALIZATIONS:
        raise UserError(f"unknown normalization '{normalization}'; choose from {', '.join(NORMALIZATIONS)}")


def analyze(features: Features, labels: Labels, normalization: str) -> dict[str, float]:
    """Each of `MEASURES` of features (n, d) and labels (n,).

    Raises:
        UserError: no such reading, or a measure has no answer for these features.
    """
    check_normalization(normalization)
    unit = UnitRows(features)
    found = {}
    for name in MEASURES:
        module = importlib.import_module(f"fakeit_eval.measures.{name}")
        try:
            found[name] = float(module.measure(unit if name in NORMALIZATIONS[normalization] else features, labels))
        except ValueError as error:
            raise UserError(f"{name} cannot be measured: {error}; analyse a set with more images") from None
        if not math.isfinite(found[name]):
            raise UserError(
                f"{name} is {found[name]}, because features are no numbers (NaN or infinite); make them again"
            )
    return found
