"""Plants faults in digits, and records what the measures of `fakeit-eval data` say of them.

Lost modes: clusters of each class are left out of the synthetic set. Noise: gray values are disturbed. Copies: training
images are hidden among generated ones, as they are, compressed, shifted by a pixel, turned and brightened.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from builders.classes.digits import compose, enlarge, load_digits_split
from builders.image_sets.open_image_set import open_image_set
from fakeit_eval.dataset_measures.copies import find_copies
from fakeit_eval.dataset_measures.estimate import Z
from fakeit_eval.dataset_measures.manifolds import find_neighbors_of_blocks, manifold_measures
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, Neighbors, find_nearest, find_neighbors
from tests.acceptance.record import command, record
from tests.planted_copies import planted_copies

NUM_DRAWS = 20
NUM_IMAGES = 500
NUM_CLUSTERS = 10
DROPPED = (0, 1, 3, 5)
"""Clusters of each class that are left out, of `NUM_CLUSTERS`."""
NOISE = (0, 10, 20, 30, 40)
"""Standard deviation of the noise in gray levels of 255."""
NUM_INTERVALS = 200
"""Draws of which the share is counted whose interval holds the truth."""
NAMES = ("precision", "recall", "density", "coverage")
Images = NDArray[np.uint8]


def images(split: str) -> tuple[Images, NDArray[np.int64]]:
    scans, labels, _ = load_digits_split(split)
    return np.stack([compose(enlarge(scan)) for scan in scans]), labels


def pixels(found: Images) -> NDArray[np.float32]:
    """Features: the gray values (n, 1024) in 0 to 1."""
    return (found[..., 0].reshape(len(found), -1) / 255).astype(np.float32)


def measured(synthetic: Images, real: Images) -> list[float]:
    found = manifold_measures(find_neighbors(pixels(synthetic), pixels(real)))
    return [found[name].value for name in NAMES]


def drop_clusters(synthetic: Images, labels: NDArray[np.int64], real: Images, num_dropped: int) -> NDArray[np.float64]:
    """The measures (draws, 4) without some clusters of each class."""
    clusters = np.zeros(len(synthetic), np.int64)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        clusters[rows] = KMeans(NUM_CLUSTERS, n_init=3, random_state=0).fit_predict(pixels(synthetic[rows]))
    found = []
    for draw in range(NUM_DRAWS):
        rng = np.random.default_rng([draw, num_dropped])
        is_kept = np.ones(len(synthetic), bool)
        for label in range(10):
            dropped = rng.permutation(NUM_CLUSTERS)[:num_dropped]
            is_kept &= ~((labels == label) & np.isin(clusters, dropped))
        rows = rng.choice(np.flatnonzero(is_kept), NUM_IMAGES, replace=False)
        found.append(measured(synthetic[rows], real[rng.choice(len(real), NUM_IMAGES, replace=False)]))
    return np.array(found)


def add_noise(synthetic: Images, real: Images, level: float) -> NDArray[np.float64]:
    """The measures (draws, 4) with gray noise on the synthetic images."""
    found = []
    for draw in range(NUM_DRAWS):
        rng = np.random.default_rng([draw, 1_000])
        rows = rng.choice(len(synthetic), NUM_IMAGES, replace=False)
        noise = rng.normal(0, level, (NUM_IMAGES, *synthetic.shape[1:3], 1))
        noisy = np.clip(synthetic[rows] + noise, 0, 255).round().astype(np.uint8)
        found.append(measured(noisy, real[rng.choice(len(real), NUM_IMAGES, replace=False)]))
    return np.array(found)


def terms_of(name: str, found: Neighbors) -> NDArray[np.float64]:
    """What each counted image adds to a measure, with the balls as they are."""
    return {
        "precision": found.is_in_real, "recall": found.is_in_synthetic, "density": found.num_real_balls / COVERAGE_K,
        "coverage": found.is_covered,
    }[name].astype(np.float64)  # fmt: skip


def share_held() -> list[str]:
    """How often 95 % intervals hold the truth, over new draws of Gaussians: a row of a table for each measure.

    The truth of a value is its mean over draws; that of the difference of two sets of the same distribution is 0. The last
    column takes the balls as they are: the spread of the counted images alone.
    """
    values, intervals, is_held, is_held_alone = (
        np.empty((NUM_INTERVALS, len(NAMES), *size)) for size in ((), (2,), (), ())
    )
    for draw in range(NUM_INTERVALS):
        rng = np.random.default_rng(draw)
        real, *others = (rng.normal(shift, 1, size=(300, 8)).astype(np.float32) for shift in (0, 0.3, 0.3))
        found = [find_neighbors(images, real) for images in others]
        one, other = (
            manifold_measures(neighbors, find_neighbors_of_blocks(images, real))
            for neighbors, images in zip(found, others, strict=True)
        )
        for column, name in enumerate(NAMES):
            difference = one[name].minus(other[name])
            low, high = difference.interval or [0.0, 0.0]
            terms = terms_of(name, found[0]) - terms_of(name, found[1])
            values[draw, column], intervals[draw, column] = one[name].value, one[name].interval
            is_held[draw, column] = low <= 0 <= high
            is_held_alone[draw, column] = abs(difference.value) <= Z * terms.std(ddof=1) / np.sqrt(len(terms))
    expected = values.mean(0)
    of_values = (intervals[..., 0] <= expected) & (expected <= intervals[..., 1])
    return [
        f"| {name} | {of_values[:, n].mean():.2f} | {is_held[:, n].mean():.2f} | {is_held_alone[:, n].mean():.2f} |"
        for n, name in enumerate(NAMES)
    ]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean over draws."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def row(name: str, found: NDArray[np.float64]) -> str:
    cells = ["{:.3f} ({:.3f} to {:.3f})".format(column.mean(), *interval(column)) for column in found.T]
    return f"| {name} | {' | '.join(cells)} |"


def hide_copies(generated: Images, real: Images, held_out: Images) -> tuple[list[str], bool]:
    chosen = np.random.default_rng(0).choice(len(real), 40, replace=False)
    kinds = planted_copies(list(real[chosen]))
    reference = pixels(real)

    def share_of(found: Images) -> NDArray[np.bool_]:
        nearest = find_nearest(pixels(found), reference)
        return find_copies(nearest.distance, nearest.spacing).is_copy

    hidden = np.concatenate([generated[:1_960], *kinds.values()])
    is_copy = share_of(hidden)
    counts = {name: int(is_copy[1_960 + 10 * number :][:10].sum()) for number, name in enumerate(kinds)}
    others, false_alarms = int(is_copy[:1_960].sum()), share_of(held_out)
    lines = [
        "| images | reported as copies |",
        "|---|---|",
        *(f"| {name} | {count} of 10 |" for name, count in counts.items()),
    ]
    lines += [
        f"| generated | {others} of 1,960 |",
        f"| real test digits | {false_alarms.sum()} of {len(false_alarms)} |",
    ]
    return lines, counts["exact"] == counts["JPEG 75"] == 10 and false_alarms.mean() <= 0.01


def main() -> None:
    (real, labels), (held_out, _) = images("train"), images("test")
    head = ["| | " + " | ".join(NAMES) + " |", "|---" * (len(NAMES) + 1) + "|"]
    lost = {num: drop_clusters(real, labels, held_out, num) for num in DROPPED}
    noisy = {level: add_noise(real, held_out, level) for level in NOISE}
    coverage = [interval(lost[num][:, 3]) for num in (0, 3, 5)]
    is_separated = coverage[0][0] > coverage[1][1] and coverage[1][0] > coverage[2][1]
    means = np.array([found.mean(0) for found in noisy.values()])
    falls = bool((np.diff(means[:, [0, 2, 3]], axis=0) < 0).all() and (np.diff(means[:, 1]) > 0).all())
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        make = command("build", "make", "digits_sd/c_cfg2", clone, "--images-per-class", 196)
        subprocess.run(make, check=True, capture_output=True)
        opened = open_image_set(str(clone))
        generated = np.stack([opened.decoded(number)[0] for number in range(len(opened))])
    copies, are_found = hide_copies(generated, real, held_out)
    record(
        "measures-planted",
        "Faults planted in digits, and what the measures say",
        [
            f"Features are the 1,024 gray values. {NUM_IMAGES} training digits stand for the synthetic set, {NUM_IMAGES} test",
            f"digits are the real one. Mean over {NUM_DRAWS} draws, with the 95 % interval of the mean.",
            "",
            f"## Clusters of each class left out, of {NUM_CLUSTERS}",
            "",
            *head,
            *(row(f"{num} left out", found) for num, found in lost.items()),
            "",
            f"- coverage at 0, 30 and 50 % has disjoint intervals: **{is_separated}**",
            "- one draw of 500 images varies more: standard deviation of coverage "
            + ", ".join(f"{found[:, 3].std(ddof=1):.3f}" for found in lost.values()),
            "",
            "## Noise, standard deviation in gray levels of 255",
            "",
            *head,
            *(row(str(level), found) for level, found in noisy.items()),
            "",
            f"- precision, density and coverage fall in order, recall rises: **{falls}**",
            "",
            "## Copies of training digits among 2,000 images, default threshold",
            "",
            *copies,
            "",
            f"- all exact and compressed copies found, at most 1 % false alarms: **{are_found}**",
            "",
            f"## Share of 95 % intervals that hold the truth, {NUM_INTERVALS} draws of 300 Gaussian features in 8 dimensions",
            "",
            "| | value | difference of two equal sets | the same, with the balls as they are |",
            "|---|---|---|---|",
            *share_held(),
        ],
    )
    if not (is_separated and falls and are_found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
