"""Probes beside the loops people write: 30 trials of the same search, each a full fit from scratch.

python -m benchmarks.probes [ROUNDS]         # about 15 minutes a round on two cores; both arms in turn, alone on the machine

4,000 x 2,048 features of 100 classes (3,200 to train, 800 to tune on), 4,000 more to test on. Features are drawn: classes
around random directions of 64, through random weights and a ReLU, as sparse and as positive as a ResNet's.
"""

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fakeit_eval.probes import logistic_regression, sgd
from fakeit_eval.probes.base import Labels, Parameters, Part, ProbeData, top1
from fakeit_eval.probes.probe import run_probe
from fakeit_eval.probes.search import Search
from tests.acceptance.record import record

NUM_TRIALS = 30
NUM_CLASSES, SIZE, LATENT = 100, 2048, 64


def draw(num: int, seed: int, noise: float = 2.2) -> Part:
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    centres, mixing = fixed.normal(size=(NUM_CLASSES, LATENT)), fixed.normal(size=(LATENT, SIZE)) / LATENT**0.5
    labels = np.arange(num) % NUM_CLASSES
    latent = centres[labels] + noise * rng.normal(size=(num, LATENT))
    return np.maximum(0.5 * latent @ mixing + 0.1 * rng.normal(size=(num, SIZE)) - 0.2, 0).astype(np.float32), labels


def make_data() -> ProbeData:
    return ProbeData(draw(3200, 1), draw(800, 2), draw(4000, 3))


def plain_logistic_regression(train: Part, asked: np.ndarray, parameters: Parameters) -> Labels:  # type: ignore[type-arg]
    """A full fit of scikit-learn's, from scratch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=parameters["C"], max_iter=logistic_regression.MAX_ITERATIONS).fit(*train)
    return np.asarray(model.predict(asked))


def plain_sgd(train: Part, asked: np.ndarray, parameters: Parameters) -> Labels:  # type: ignore[type-arg]
    """The loop of PyTorch's tutorials: a DataLoader, a linear layer, SGD, a cosine; to the last epoch."""
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.from_numpy(train[0]))
    dataset = torch.utils.data.TensorDataset(features, torch.from_numpy(train[1]))
    loader = torch.utils.data.DataLoader(dataset, sgd.BATCH_SIZE, shuffle=True)
    network = torch.nn.Linear(SIZE, NUM_CLASSES)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=parameters["learning_rate"],
        momentum=sgd.MOMENTUM,
        weight_decay=parameters["weight_decay"],
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, sgd.NUM_EPOCHS * len(loader))
    for _ in range(sgd.NUM_EPOCHS):
        for inputs, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        return network(torch.nn.functional.normalize(torch.from_numpy(asked))).argmax(1).numpy()


Fit = Callable[[Part, "np.ndarray", Parameters], Labels]  # type: ignore[type-arg]


def from_scratch(fit: Fit, suggest: Callable[[optuna.Trial], Parameters], data: ProbeData, seed: int) -> float:
    """Top-1 on the test part of the same search with full fits."""
    with tempfile.TemporaryDirectory() as folder:
        search = Search(Path(folder), NUM_TRIALS, seed)
        trials = search.run(suggest, lambda parameters: top1(fit(data.train, data.val[0], parameters), data.val[1]))
    best = max(trials, key=lambda trial: (trial.value or 0.0, -trial.number)).params
    return top1(fit(data.both, data.test[0], best), data.test[1])


def ours(name: str, data: ProbeData, seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return run_probe(name, data, num_trials=NUM_TRIALS, seed=seed, study=Path(folder)).top1


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """Seconds and what came out."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def main(num_rounds: int) -> None:
    data = make_data()
    peers: dict[str, tuple[Fit, Callable[[optuna.Trial], Parameters]]] = {
        "logistic_regression": (plain_logistic_regression, logistic_regression.suggest),
        "sgd": (plain_sgd, sgd.suggest),
    }
    lines = [
        "30 trials of one search by Optuna's TPE and the last fit: ours, and full fits from scratch. 3,200 + 800 + 4,000",
        f"features of {SIZE} dimensions, {NUM_CLASSES} classes; {num_rounds} rounds, each with another seed of the search.",
        "",
        "| probe | time, ours / from scratch | ours, s | from scratch, s | top-1, ours | top-1, from scratch | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (fit, suggest) in peers.items():
        rounds = []
        for seed in range(num_rounds):
            mine = timed(lambda name=name, seed=seed: ours(name, data, seed))  # type: ignore[misc]
            theirs = timed(lambda fit=fit, suggest=suggest, seed=seed: from_scratch(fit, suggest, data, seed))  # type: ignore[misc]
            rounds.append((mine, theirs))
            print(name, seed, mine, theirs, flush=True)
        ratios = sorted(mine[0] / theirs[0] for mine, theirs in rounds)
        mean = [statistics.mean(values) for values in zip(*(m + t for m, t in rounds), strict=True)]
        differences = ", ".join(f"{mine[1] - theirs[1]:+.2f}" for mine, theirs in rounds)
        lines.append(
            f"| {name.replace('_', ' ')} | {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) | "
            f"{mean[0]:.1f} | {mean[2]:.1f} | {mean[1]:.2f} | {mean[3]:.2f} | {differences} |"
        )
    record("probes", "Probes beside full fits from scratch", lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
