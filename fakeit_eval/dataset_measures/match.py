"""Chooses the images of two sets that are compared: the same classes, and of each class as many of one as of the other.

Distances between sets depend on the number of images and on the shares of classes, so both are made equal. Images are
chosen by the hash of their keys, so two clones with the same keys are compared on the same images.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from builders.classes.matching import match_classes
from builders.errors import UserError
from builders.image_sets.base import ImageSet, Labels


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Rows of both sets that are compared, ordered by class; both have the same number of each class."""

    synthetic: NDArray[np.int64]
    """Indices (n,) into the synthetic set."""
    real: NDArray[np.int64]
    """Indices (n,) into the real set."""
    labels: Labels
    """Class (n,) of each row of both, an index into the synthetic set's classes; -1 if the sets share no class."""
    real_labels: Labels
    """Class (m,) of all real images, an index into the synthetic set's classes; -1 if these have no such class."""
    note: str
    """What was left out, in words; "" if nothing."""


def match_sets(synthetic: ImageSet, real: ImageSet) -> Matched:
    """Chooses the images of two sets that are compared.

    If the sets share no class, as many images of one as of the other are drawn from all.
    """
    found = match_classes(
        real.class_names, real.display_names, synthetic.class_names, synthetic.display_names, where=real.location
    )
    label_of = np.array([-1 if label is None else label for label in found])
    labels = label_of[real.labels]
    if (labels < 0).all():
        count = min(len(synthetic), len(real))
        drawn = [_order(images, np.arange(len(images)))[:count] for images in (synthetic, real)]
        note = f"no class in common; compared on {count:,} images of each set"
        return Matched(synthetic=drawn[0], real=drawn[1], labels=np.full(count, -1), real_labels=labels, note=note)
    rows, others, chosen = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[Labels]()
    for label in range(len(synthetic.class_names)):
        own, other = np.flatnonzero(synthetic.labels == label), np.flatnonzero(labels == label)
        count = min(len(own), len(other))
        rows.append(_order(synthetic, own, len(own) > count)[:count])
        others.append(_order(real, other, len(other) > count)[:count])
        chosen.append(np.full(count, label))
    compared = np.concatenate(chosen)
    return Matched(
        synthetic=np.concatenate(rows),
        real=np.concatenate(others),
        labels=compared,
        real_labels=labels,
        note=_note(synthetic, real, compared),
    )


def match_pairs(one: ImageSet, other: ImageSet) -> tuple[ImageSet, ImageSet, NDArray[np.int64], NDArray[np.int64]]:
    """The images of two clones that have the same keys, in the same order and with the first one's labels.

    Returns:
        Both sets of p pairs, and the indices (p,) of their images in `one` and in `other`.

    Raises:
        UserError: the images have no keys, or no key is in both.
    """
    if str in (one.key_of, other.key_of):
        unnamed = one if one.key_of is str else other
        raise UserError(
            f"the images of '{unnamed.location}' have no keys to pair them by; give --against with two clones"
        )
    keys = {other.key_of(number): number for number in range(len(other))}
    pairs = [(number, keys[key]) for number in range(len(one)) if (key := one.key_of(number)) in keys]
    if not pairs:
        raise UserError(
            f"'{one.location}' and '{other.location}' have no key in common, so their images are no pairs; compare each "
            "with --real on its own"
        )
    rows = np.array(pairs, dtype=np.int64)
    first, second = one.subset(rows[:, 0]), other.subset(rows[:, 1])
    # The same key is of the same class, whatever number the class has in the other clone.
    second = replace(second, labels=first.labels, class_names=first.class_names, display_names=first.display_names)
    return first, second, rows[:, 0], rows[:, 1]


def _note(synthetic: ImageSet, real: ImageSet, labels: Labels) -> str:
    if len(labels) == len(synthetic) == len(real):
        return ""
    num_classes = len(np.unique(labels))
    return (
        f"compared on {len(labels):,} images of each set in {num_classes:,} shared classes, the smaller number of each "
        f"class; the sets have {len(synthetic):,} and {len(real):,}"
    )


def _order(images: ImageSet, rows: NDArray[np.int64], is_cut: bool = True) -> NDArray[np.int64]:
    """Rows in the order of the hashes of their keys; as they are if all of them are used."""
    if not is_cut:
        return rows
    return np.array(sorted(rows.tolist(), key=lambda row: hashlib.blake2b(images.key_of(row).encode()).digest()))
