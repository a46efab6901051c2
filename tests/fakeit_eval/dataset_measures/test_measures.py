"""Each measure equals torch-fidelity's, or its closed form in float64; each standard error that of a bootstrap."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from fakeit_eval.dataset_measures import measure_all, neighbors
from fakeit_eval.dataset_measures.approximate_neighbors import find_nearest_approximately
from fakeit_eval.dataset_measures.copies import find_copies
from fakeit_eval.dataset_measures.estimate import Estimate, share
from fakeit_eval.dataset_measures.frechet_distance import frechet_distance
from fakeit_eval.dataset_measures.kernel_distance import kernel_distance
from fakeit_eval.dataset_measures.manifolds import find_neighbors_of_blocks, manifold_measures
from fakeit_eval.dataset_measures.measure_all import compare_sets, measure_diversity
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, MANIFOLD_K, find_nearest, find_neighbors
from fakeit_eval.dataset_measures.pairwise_distance import pairwise_distance
from fakeit_eval.dataset_measures.vendi_score import vendi_score

Array = NDArray[np.float64]
NUM_DRAWS = 1_000


def two_sets(n: int = 500, m: int = 500, size: int = 16, seed: int = 0) -> tuple[Array, Array]:
    """Returns float64 features that float32 holds exactly, of two distributions that overlap."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(np.arange(1, size + 1))
    synthetic, real = rng.normal(size=(n, size)) * scale, rng.normal(0.2, 1.2, size=(m, size)) * scale
    return synthetic.astype(np.float32).astype(np.float64), real.astype(np.float32).astype(np.float64)


def unit(features: Array) -> Array:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def manifolds(synthetic: Array, real: Array) -> dict[str, float]:
    found = find_neighbors(synthetic.astype(np.float32), real.astype(np.float32))
    return {name: estimate.value for name, estimate in manifold_measures(found).items()}


# --- against torch-fidelity and closed forms ---


@pytest.mark.parametrize(("n", "m", "size"), [(500, 500, 16), (70, 400, 64), (300, 65, 64)])
def test_frechet_distance__is_torch_fidelitys(n: int, m: int, size: int) -> None:
    synthetic, real = two_sets(n, m, size)
    statistics = [fid_features_to_statistics(torch.from_numpy(found)) for found in (synthetic, real)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(synthetic, real).value == pytest.approx(expected, rel=1e-6)


def test_frechet_distance__of_fewer_images_than_dimensions_follows_the_definition() -> None:
    # Of four images in 30 dimensions the covariance is singular; scipy's square root of the product is the definition's.
    from scipy.linalg import sqrtm

    synthetic, real = two_sets(4, 40, 30)
    one, other = np.cov(synthetic, rowvar=False), np.cov(real, rowvar=False)
    step = synthetic.mean(0) - real.mean(0)
    expected = (
        step @ step + np.trace(one) + np.trace(other) - 2 * np.trace(sqrtm(one @ other + 1e-13 * np.eye(30)).real)
    )
    assert frechet_distance(synthetic, real).value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [5, 64])
def test_kernel_distance__is_torch_fidelitys_with_one_subset_of_all(size: int) -> None:
    synthetic, real = two_sets(2_100, 2_100, size)  # more than one block
    options = {"kid_subsets": 1, "kid_subset_size": 2_100, "kid_kernel": "poly", "verbose": False}
    expected = kid_features_to_metric(torch.from_numpy(synthetic), torch.from_numpy(real), **options)
    found = kernel_distance(synthetic, real).value
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)


@pytest.mark.parametrize("is_double", [True, False])
@pytest.mark.parametrize(("n", "m"), [(500, 500), (2_500, 2_100), (30, 4_200)])
def test_precision_recall__are_torch_fidelitys(
    n: int, m: int, is_double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "MAX_DOUBLE", math.inf if is_double else 0)
    synthetic, real = two_sets(n, m)
    options = {"prc_neighborhood": MANIFOLD_K, "prc_batch_size": 10_000, "save_cpu_ram": False, "verbose": False}
    expected = prc_features_to_metric(torch.from_numpy(synthetic), torch.from_numpy(real), **options)
    found = manifolds(synthetic, real)
    assert found["precision"] == pytest.approx(expected["precision"], rel=1e-6)
    assert found["recall"] == pytest.approx(expected["recall"], rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(500, 500), (2_500, 60), (30, 4_200)])
def test_neighbors__are_those_of_all_distances(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "MAX_DOUBLE", 0)  # single precision, where rounding could decide
    synthetic, real = two_sets(n, m)
    found = find_neighbors(synthetic.astype(np.float32), real.astype(np.float32))
    across, within = cdist(synthetic, real), np.sort(cdist(real, real), 1)
    in_balls = across <= within[:, COVERAGE_K]
    assert found.num_real_balls.tolist() == in_balls.sum(1).tolist()
    assert found.is_covered.tolist() == (across.min(0) <= within[:, COVERAGE_K]).tolist()
    assert found.nearest_real.tolist() == across.argmin(1).tolist()
    np.testing.assert_allclose(found.nearest_real_distance, across.min(1), rtol=1e-12)
    np.testing.assert_allclose(found.nearest_synthetic_distance, across.min(0), rtol=1e-12)
    np.testing.assert_allclose(found.real_spacing, within[:, 1], rtol=1e-12)
    nearest = find_nearest(synthetic.astype(np.float32), real.astype(np.float32))
    assert nearest.real.tolist() == across.argmin(1).tolist()
    np.testing.assert_allclose(nearest.distance, across.min(1), rtol=1e-12)
    np.testing.assert_allclose(nearest.spacing, within[:, 1], rtol=1e-12)


@pytest.mark.parametrize("is_double", [True, False])
def test_neighbors__an_image_at_exactly_the_radius_is_inside(is_double: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "MAX_DOUBLE", math.inf if is_double else 0)
    real = np.arange(12, dtype=np.float32)[:, None] + 1e4  # far from zero, where squares are rounded
    # The third nearest of 10,000 is 10,003, so its ball ends there and begins at 9,997.
    synthetic = np.array([9_997, 9_996.99, 10_005.5, 20_000, 20_001, 20_002], dtype=np.float32)[:, None]
    found = find_neighbors(synthetic, real)
    assert found.is_in_real.tolist() == [True, False, True, False, False, False]


@pytest.mark.parametrize("is_double", [True, False])
def test_neighbors__sets_of_duplicates_are_in_their_own_manifold(
    is_double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "MAX_DOUBLE", math.inf if is_double else 0)
    images = np.repeat(two_sets(40)[0], 8, axis=0).astype(np.float32)  # all radii are 0
    found = find_neighbors(images, images[::-1].copy())
    assert found.is_in_real.all() and found.is_in_synthetic.all() and found.is_covered.all()
    assert (found.num_real_balls == 8).all()
    assert not found.nearest_real_distance.any()


def test_density_coverage__equal_their_definition() -> None:
    synthetic, real = two_sets(60, 50)
    radii = np.sort(cdist(real, real), 1)[:, COVERAGE_K]
    hits = cdist(synthetic, real) <= radii
    found = manifolds(synthetic, real)
    assert found["density"] == pytest.approx(hits.sum() / (COVERAGE_K * 60), rel=1e-12)
    assert found["coverage"] == hits.any(0).mean()


def test_vendi_score__equals_its_closed_form() -> None:
    for n, size in ((40, 8), (8, 40)):
        images = unit(two_sets(n, 1, size)[0])
        values = np.linalg.eigvalsh(images @ images.T / n)
        expected = math.exp(-sum(value * math.log(value) for value in values if value > 1e-15))
        assert vendi_score(images).value == pytest.approx(expected, rel=1e-9)
    assert vendi_score(np.eye(30)).value == pytest.approx(30, rel=1e-9)
    assert vendi_score(np.repeat(np.eye(30)[:1], 9, 0)).value == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("n", "size"), [(40, 8), (40, 60), (40, 100)])
def test_vendi_score__does_not_change_if_every_image_is_there_twice(n: int, size: int) -> None:
    images = unit(two_sets(n, 1, size)[0])
    assert vendi_score(np.repeat(images, 2, 0)).value == pytest.approx(vendi_score(images).value, rel=1e-9)


def test_pairwise_distance__is_scipys_mean_over_pairs_with_a_label() -> None:
    images, labels = unit(two_sets(1_300)[0]), np.repeat([0, 1, 2], [1_100, 199, 1])
    found, num_pairs = pairwise_distance(images, labels)
    pairs = np.concatenate([pdist(images[labels == label]) for label in range(3)])
    assert num_pairs == len(pairs)
    assert found.value == pytest.approx(pairs.mean(), rel=1e-9)


def test_pairwise_distance__of_single_images_is_not_defined() -> None:
    with pytest.raises(ValueError, match="no two images belong together"):
        pairwise_distance(np.eye(3), np.arange(3))


# --- standard errors ---


def bootstrap(measure: Callable[[Array, Array], Estimate], synthetic: Array, real: Array, draws: int) -> float:
    rng = np.random.default_rng(1)
    n, m = len(synthetic), len(real)
    values = [measure(synthetic[rng.integers(0, n, n)], real[rng.integers(0, m, m)]).value for _ in range(draws)]
    return float(np.std(values))


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_standard_error__of_distances_is_that_of_a_bootstrap(measure: Callable[[Array, Array], Estimate]) -> None:
    synthetic, real = two_sets(400, 300, 6)
    found = measure(synthetic, real).standard_error
    assert found == pytest.approx(bootstrap(measure, synthetic, real, NUM_DRAWS), rel=0.12)


@pytest.mark.parametrize("measure", [vendi_score, lambda images: pairwise_distance(images, np.arange(400) % 4)[0]])
def test_standard_error__of_diversity_is_that_of_new_draws(measure: Callable[[Array], Estimate]) -> None:
    # A bootstrap has every image several times, which no new set has; so the draws are new ones.
    def draw(seed: int) -> Array:
        return unit(two_sets(400, 1, 6, seed)[0] + 0.5)

    values = [measure(draw(seed)).value for seed in range(1, NUM_DRAWS + 1)]
    assert measure(draw(0)).standard_error == pytest.approx(np.std(values), rel=0.15)


def test_interval__of_manifold_measures_holds_what_new_draws_give() -> None:
    # A ball depends on other images, so a bootstrap would be wrong; the draws are new ones, also for the difference of
    # two synthetic sets of the same distribution, which is 0.
    def draw(seed: int) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        rng = np.random.default_rng(seed)
        real, *others = (rng.normal(shift, 1, size=(300, 6)).astype(np.float32) for shift in (0, 0.3, 0.3))
        one, other = (
            manifold_measures(find_neighbors(images, real), find_neighbors_of_blocks(images, real)) for images in others
        )
        return one, {name: one[name].minus(other[name]) for name in one}

    draws = [draw(seed) for seed in range(60)]
    for name in ("precision", "recall", "density", "coverage"):
        expected = np.mean([one[name].value for one, _ in draws])
        for which, truth in ((0, expected), (1, 0.0)):
            intervals = [found[which][name].interval for found in draws]
            share_held = np.mean([low <= truth <= high for low, high in filter(None, intervals)])
            assert share_held > 0.8, (name, which)
            assert len(intervals) == len(list(filter(None, intervals)))


def test_find_neighbors_of_blocks__few_images_have_no_blocks() -> None:
    synthetic, real = (found.astype(np.float32) for found in two_sets(59, 59))
    found = manifold_measures(find_neighbors(synthetic, real), find_neighbors_of_blocks(synthetic, real))
    assert all(estimate.interval is None for estimate in found.values())


def test_interval__of_a_share_is_wilsons_and_never_a_point() -> None:
    low, high = share(np.ones(20, bool)).interval or (0, 0)
    assert low == pytest.approx(20 / (20 + 1.959964**2), rel=1e-6) and high == 1
    assert share(np.ones(1, bool)).interval is not None


def test_interval__of_a_paired_difference_is_narrower_than_of_independent_sets() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=1_000)
    one, other = (Estimate(value=v, synthetic=shared + rng.normal(0, 0.1, 1_000)) for v in (1.0, 0.98))
    difference = one.minus(other)
    assert difference.value == pytest.approx(0.02)
    assert difference.standard_error == pytest.approx(0.1 * math.sqrt(2 / 1_000), rel=0.1)
    assert difference.standard_error < 0.2 * math.hypot(one.standard_error, other.standard_error)


def test_interval__of_a_share_in_all_blocks_is_no_point() -> None:
    images = two_sets(400)[0].astype(np.float32)
    found = manifold_measures(find_neighbors(images, images), find_neighbors_of_blocks(images, images))
    low, high = found["coverage"].interval or (1.0, 0.0)
    assert found["coverage"].value == 1 and 0.98 < low < 1 == high


def test_interval__of_a_difference_of_equal_shares_is_no_point() -> None:
    none = share(np.zeros(1_000, bool))
    low, high = none.minus(none).interval or (0.0, 0.0)
    assert low == pytest.approx(-high) and 0.001 < high < 0.005
    one, other = np.arange(1_000) < 300, np.arange(1_000) >= 750
    low, high = share(one).minus(share(other)).interval or (0.0, 0.0)
    # McNemar's closed form for many pairs: 300 count in one only, 250 in the other only.
    half = 1.96 * math.sqrt((0.55 - 0.05**2) / 1_000)
    assert low == pytest.approx(0.05 - half, abs=1e-3) and high == pytest.approx(0.05 + half, abs=1e-3)


# --- sets of other shapes ---


def test_compare_sets__too_few_images_are_named() -> None:
    images = np.zeros((3, 4), dtype=np.float32)
    found = compare_sets(images, images)
    assert not found.estimates
    assert found.missing["coverage"] == "needs more than 5 images of each set, and has 3"


def test_compare_sets__no_frechet_distance_with_fewer_images_than_dimensions() -> None:
    synthetic, real = (found.astype(np.float32) for found in two_sets(20, 20, 30))
    found = compare_sets(synthetic, real)
    assert "frechet_distance" in found.missing and "kernel_distance" in found.estimates


def test_measure_diversity__one_image_has_no_distances() -> None:
    found = measure_diversity(np.ones((1, 4), dtype=np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert found.estimates["vendi_score"].value == pytest.approx(1)
    assert found.estimates["vendi_score"].fields() == {"value": 1.0}  # no interval
    assert set(found.missing) == {"class_distance", "prompt_distance"}


def test_find_copies__the_threshold_is_a_quantile_of_the_spacing_of_real_images() -> None:
    spacing = np.arange(1, 10_002, dtype=np.float64)
    found = find_copies(np.array([0.0, 26.0, 26.5]), spacing)
    assert found.threshold == 26.0
    assert found.is_copy.tolist() == [True, True, False]


# --- more images than can be compared with each other ---


def test_approximate_neighbors__are_nearly_always_the_nearest() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 3, size=(20, 12))
    synthetic, real = (
        (centers[rng.integers(0, 20, n)] + rng.normal(size=(n, 12))).astype(np.float32) for n in (4_000, 5_000)
    )
    found, recall = find_nearest_approximately(synthetic, real)
    exact = find_nearest(synthetic, real)
    assert recall == pytest.approx((found.real == exact.real).mean(), abs=0.02) and recall > 0.95
    assert (np.isclose(found.distance, exact.distance)).mean() > 0.95
    assert (np.isclose(found.spacing, exact.spacing)).mean() > 0.95


def test_compare_sets__of_more_images_every_class_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic, real = (found.astype(np.float32) for found in two_sets(600, 600))
    synthetic[500:] += 3  # the last of six classes is far off
    whole = compare_sets(synthetic, real)
    monkeypatch.setattr(measure_all, "MAX_EXACT", 300)
    some = compare_sets(synthetic, real)
    assert some.compared is not None and np.bincount(some.compared // 100).tolist() == [50] * 6
    for name, estimate in some.estimates.items():
        assert estimate.value == pytest.approx(whole.estimates[name].value, rel=0.25), name


# --- rounding ---


@pytest.mark.parametrize("spread", [1e-3, 1e-2, 1e-1])
def test_neighbors__of_tight_clusters_are_those_of_double_precision(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Distances within a cluster are smaller than the rounding errors of squared distances in single precision.
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 64))
    synthetic, real = (
        (centers[np.arange(600) % 20] + rng.normal(0, spread, size=(600, 64))).astype(np.float32) for _ in range(2)
    )
    monkeypatch.setattr(neighbors, "MAX_DOUBLE", 0)
    found, nearest = find_neighbors(synthetic, real), find_nearest(synthetic, real)
    across = cdist(synthetic.astype(np.float64), real.astype(np.float64))
    within = np.sort(cdist(real.astype(np.float64), real.astype(np.float64)), 1)
    assert found.num_real_balls.tolist() == (across <= within[:, COVERAGE_K]).sum(1).tolist()
    np.testing.assert_allclose(found.nearest_real_distance, across.min(1), rtol=1e-3)
    np.testing.assert_allclose(nearest.distance, across.min(1), rtol=1e-3)
    np.testing.assert_allclose(found.nearest_synthetic_distance, across.min(0), rtol=1e-3)
    np.testing.assert_allclose(nearest.spacing, within[:, 1], rtol=1e-9)
