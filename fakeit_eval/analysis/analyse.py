"""The measures of a set of features, l2-normalised as the paper's text says, or as its caption does.

Each measure is a module of this folder with `measure(features, labels)`.
"""

import importlib
import math

from builders.format.errors import UserError
from fakeit_eval.analysis.chunks import Features, Labels
from fakeit_eval.stacked import UnitRows

DISTANCES = ("intra_class_distance", "intra_class_distance_per_class")
"""Two readings of "the average distance between samples from the same class": over pairs, and over classes."""
MEASURES = ("sparsity", *DISTANCES, "feature_redundancy", "coding_length")
SHOWN = ("sparsity", "intra_class_distance", "feature_redundancy", "coding_length")
"""Those of the paper's Fig. 1."""
READINGS = {"text": MEASURES, "caption": ("sparsity", *DISTANCES)}
"""Which measures see normalised features: all of them (supplementary, section 3.3), or the first two of Fig. 1's caption."""


def check_reading(reading: str) -> None:
    """Before anything is measured.

    Raises:
        UserError: there is no such reading.
    """
    if reading not in READINGS:
        raise UserError(f"unknown reading '{reading}'; choose from {', '.join(READINGS)}")


def analyse(features: Features, labels: Labels, reading: str) -> dict[str, float]:
    """Each of `MEASURES` of features (n, d) and labels (n,).

    Raises:
        UserError: no such reading, or a measure has no answer for these features.
    """
    check_reading(reading)
    unit = UnitRows(features)
    found = {}
    for name in MEASURES:
        module = importlib.import_module(f"fakeit_eval.analysis.{name}")
        try:
            found[name] = float(module.measure(unit if name in READINGS[reading] else features, labels))
        except ValueError as error:
            raise UserError(f"{name} cannot be measured: {error}; analyse a set with more images") from None
        if not math.isfinite(found[name]):
            raise UserError(
                f"{name} is {found[name]}, because features are no numbers (NaN or infinite); make them again"
            )
    return found
