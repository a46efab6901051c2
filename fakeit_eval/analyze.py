"""Computes all measures of a set of features, l2-normalized as the paper's text or as the caption of its Fig. 1 says.

Each measure is a module of fakeit_eval/measures with `measure(features, labels)`.
"""

import importlib
import math

from builders.errors import UserError
from fakeit_eval.features.chunks import Features, Labels
from fakeit_eval.features.rows import UnitRows

DISTANCES = ("intra_class_distance", "intra_class_distance_per_class")
"""Means over pairs and over classes; the paper's "average distance between samples from the same class" fits both."""
MEASURES = ("sparsity", *DISTANCES, "feature_redundancy", "coding_length")
SHOWN = ("sparsity", "intra_class_distance", "feature_redundancy", "coding_length")
"""The measures of the paper's Fig. 1."""
NORMALIZATIONS = {"text": MEASURES, "caption": ("sparsity", *DISTANCES)}
"""Which measures are computed on normalized features: all of them, as in the supplementary, section 3.3 ("text"), or
the first two of Fig. 1, as in its caption ("caption")."""


def check_normalization(normalization: str) -> None:
    """Checks the name of a normalization, so that a mistake is reported before anything is computed.

    Raises:
        UserError: the normalization is unknown.
    """
    if normalization not in NORMALIZATIONS:
        raise UserError(f"unknown normalization '{normalization}'; choose from {', '.join(NORMALIZATIONS)}")


def analyze(features: Features, labels: Labels, normalization: str) -> dict[str, float]:
    """Computes each of `MEASURES` of features (n, d) and labels (n,).

    Raises:
        UserError: the normalization is unknown, or a measure is not defined for these features.
    """
    check_normalization(normalization)
    unit = UnitRows(features)
    found = {}
    for name in MEASURES:
        module = importlib.import_module(f"fakeit_eval.measures.{name}")
        try:
            found[name] = float(module.measure(unit if name in NORMALIZATIONS[normalization] else features, labels))
        except ValueError as error:
            raise UserError(f"{name} cannot be measured: {error}; analyze a dataset with more images") from None
        if not math.isfinite(found[name]):
            raise UserError(f"{name} is {found[name]}, because some features are NaN or infinite; extract them again")
    return found
