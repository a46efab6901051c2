import numpy as np

from fakeit_eval.probes.logistic_regression import C_RANGE, draw_validation, probe


def blobs(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Three classes in eight dimensions, some of them mixed up."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    return (np.eye(8)[labels] * 2 + rng.normal(size=(num, 8))).astype(np.float32), labels


def test_logistic_regression__separates_what_can_be_separated() -> None:
    train, test = blobs(300, 0), blobs(300, 1)
    score = probe(*draw_validation(*train, share=0.2, seed=0), test, num_trials=5, seed=0)
    assert 80 < score.top1 < 100 and abs(score.top1 - score.mean_per_class) < 1e-6
    assert len(score.trials) == 5 and C_RANGE[0] <= score.parameters["C"] <= C_RANGE[1]
    best = max(score.trials, key=lambda trial: trial["top1"])
    assert best["C"] == score.parameters["C"]


def test_logistic_regression__noise_stays_at_chance() -> None:
    features, labels = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32), np.arange(600) % 3
    data = (features[:200], labels[:200]), (features[200:300], labels[200:300]), (features[300:], labels[300:])
    assert probe(*data, num_trials=3, seed=0).top1 < 45


def test_logistic_regression__drawn_val_is_stratified_disjoint_and_seeded() -> None:
    features, labels = np.arange(300, dtype=np.float32)[:, None], np.arange(300) % 3
    (train, train_labels), (val, val_labels) = draw_validation(features, labels, share=0.2, seed=0)
    assert np.bincount(val_labels).tolist() == [20, 20, 20] and len(train_labels) == 240
    assert not set(train[:, 0]) & set(val[:, 0])
    assert (draw_validation(features, labels, share=0.2, seed=0)[1][0] == val).all()
