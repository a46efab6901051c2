"""What `fakeit-eval data` finds about single images: a table with a row for each, and pairs that look like copies."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from builders.image_sets.base import ImageSet, Labels
from fakeit_eval.dataset_measures.copies import Copies
from fakeit_eval.dataset_measures.distances import Features
from fakeit_eval.dataset_measures.match import Matched
from fakeit_eval.dataset_measures.measure_all import Measured
from fakeit_eval.dataset_measures.neighbors import Nearest
from fakeit_eval.figures.copies import draw_pairs

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PAIRS = 100
"""Pairs of a suspected copy and its real image that a result lists."""
MAX_DRAWN = 48
"""Pairs that are drawn."""


@dataclass(frozen=True, kw_only=True)
class MeasuredClone:
    """What was measured of one clone."""

    images: ImageSet
    features: Features
    """(n, d), of all images."""
    prompts: Labels | None
    """Number (n,) of each image's prompt; None if the images have none."""
    measured: Measured
    matched: Matched | None = None
    """The images that were compared with real ones."""
    nearest: Nearest | None = None
    copies: Copies | None = None
    exactness: float = 1.0
    """Share of the nearest real images that are exactly the nearest."""
    known: NDArray[np.int64] | None = None
    """Indices (k,) of the images whose class the classifier knows."""
    is_recognized: NDArray[np.bool_] | None = None
    """(k,), of those."""


def nearest_pairs(found: MeasuredClone) -> list[tuple[int, int, float]]:
    """Index of a suspected copy, of its real image, and their distance; the nearest first."""
    if not (found.copies and found.nearest):
        return []
    numbers = np.flatnonzero(found.copies.is_copy)
    order = numbers[np.argsort(found.nearest.distance[numbers], kind="stable")][:MAX_PAIRS]
    return [(int(n), int(found.nearest.real[n]), float(found.nearest.distance[n])) for n in order]


def draw_copies(found: MeasuredClone, real: ImageSet | None) -> bytes | None:
    """Draws the suspected copies beside their real images, as a PNG file; None if there are none."""
    pairs = nearest_pairs(found)[:MAX_DRAWN]
    if not real or not pairs:
        return None
    return draw_pairs([
        (found.images.decoded(number)[0], real.decoded(other)[0], f"{distance:.3g}") for number, other, distance in pairs
    ])  # fmt: skip


def image_table(found: MeasuredClone, real: ImageSet | None) -> "pa.Table":
    """A row for each synthetic image, and for each real one; a field that was not measured is null.

    set, key, class: synthetic or real, and the image's name; its class, for real images by the clone's name of it
    nearest, distance: key of the nearest image of the other set (of real images only the distance), and l2 distance
    is_copy, is_recognized: of synthetic images
    in_manifold: whether the image lies in the manifold of the other set
    num_real_balls: of synthetic images, how many real ones have it nearby; is_covered: of real images
    """
    import pyarrow as pa

    images, neighbors, matched, nearest = found.images, found.measured.neighbors, found.matched, found.nearest
    synthetic = _columns("synthetic", images)
    if real and nearest and found.copies:
        synthetic["nearest"] = [real.key_of(int(number)) for number in nearest.real]
        synthetic["distance"] = nearest.distance
        synthetic["is_copy"] = found.copies.is_copy
    if found.known is not None and found.is_recognized is not None:
        synthetic["is_recognized"] = _spread(found.is_recognized, found.known, len(images))
    if not real:
        return pa.table(synthetic, schema=_schema())
    others = _columns("real", real)
    if matched:
        # The clone's name of a class, so that both can be shown on one page.
        others["class"] = [
            images.class_names[label] if label >= 0 else name
            for label, name in zip(matched.real_labels, others["class"], strict=True)
        ]
    if neighbors and matched:
        rows, other_rows = matched.synthetic[found.measured.compared], matched.real[found.measured.compared]
        synthetic["in_manifold"] = _spread(neighbors.is_in_real, rows, len(images))
        synthetic["num_real_balls"] = _spread(neighbors.num_real_balls, rows, len(images))
        others["distance"] = _spread(neighbors.nearest_synthetic_distance, other_rows, len(real))
        others["in_manifold"] = _spread(neighbors.is_in_synthetic, other_rows, len(real))
        others["is_covered"] = _spread(neighbors.is_covered, other_rows, len(real))
    return pa.concat_tables(pa.table(columns, schema=_schema()) for columns in (synthetic, others))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema({
        "set": pa.string(), "key": pa.string(), "class": pa.string(), "nearest": pa.string(), "distance": pa.float32(),
        "is_copy": pa.bool_(), "is_recognized": pa.bool_(), "in_manifold": pa.bool_(), "num_real_balls": pa.int32(),
        "is_covered": pa.bool_(),
    })  # fmt: skip


def _columns(name: str, images: ImageSet) -> dict[str, Any]:
    count = len(images)
    columns: dict[str, Any] = {field: [None] * count for field in _schema().names}
    columns["set"] = [name] * count
    columns["key"] = [images.key_of(number) for number in range(count)]
    columns["class"] = [images.class_names[label] for label in images.labels]
    return columns


def _spread(values: NDArray[Any], rows: NDArray[np.int64], count: int) -> list[Any]:
    """Puts values at their rows of a column; the others are null."""
    column: list[Any] = [None] * count
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        column[row] = value
    return column
