"""Compares probes with plain ones: final fits with scikit-learn's at the same C, and the scores of whole searches.

python -m tests.acceptance.accept_probes [NUM_SEEDS]        # about 6 minutes on two cores for ten seeds

There are three sets of features, each with 5,000 test rows:
- features of a ResNet18 with random weights for crops of photographs, where the class is the photograph;
- random features, a mixture through a ReLU;
- the pixels of noisy digits.

The plain search fits by scikit-learn alone or by an independent loop, with the same sampler and seeds.
"""

import math
import multiprocessing
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fakeit_eval.probes import logistic_regression, sgd
from fakeit_eval.probes.base import LabeledFeatures, Labels, Parameters, ProbeData, top1
from fakeit_eval.probing.run_probe import run_probe
from fakeit_eval.probing.search import Search
from tests.acceptance.record import record

NUM_TRIALS = 30
SIZES = (640, 160, 5000)
"""Number of rows in train, val and test."""
SOME_C = (1e-4, 1e-2, 1.0, 1e2, 1e5)
T_95 = {2: 12.71, 3: 4.303, 5: 2.776, 10: 2.262}
"""Student's t for the 95 % confidence interval of a mean, by the number of seeds."""


def _split(features: NDArray[Any], labels: NDArray[Any]) -> ProbeData:
    first, second = SIZES[0], SIZES[0] + SIZES[1]
    cuts = (slice(first), slice(first, second), slice(second, second + SIZES[2]))
    return ProbeData(*((features[cut].astype(np.float32), labels[cut].astype(np.int64)) for cut in cuts))


def crops() -> ProbeData:
    import skimage.data
    import torchvision
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "coffee", "cat", "camera", "coins", "moon")
    photographs = [*load_sample_images().images, *(getattr(skimage.data, name)() for name in names)]
    photographs = [found if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2) for found in photographs]
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.arange(sum(SIZES)) % len(photographs))
    pixels = np.empty((len(labels), 48, 48, 3), dtype=np.uint8)
    for row, label in enumerate(labels):
        height, width = photographs[label].shape[:2]
        top, left = draw.integers(0, height - 47), draw.integers(0, width - 47)
        pixels[row] = photographs[label][top : top + 48, left : left + 48]
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()  # type: ignore[assignment]
    network.eval()
    with torch.inference_mode():
        found = [
            network(torch.from_numpy(some).permute(0, 3, 1, 2).float() / 127.5 - 1)
            for some in np.array_split(pixels, 60)
        ]
    return _split(torch.cat(found).numpy(), labels)


def mixture() -> ProbeData:
    draw = np.random.default_rng(1)
    centers, mixing = draw.normal(size=(20, 32)), draw.normal(size=(32, 256)) / 32**0.5
    labels = draw.permutation(np.arange(sum(SIZES)) % 20)
    latent = centers[labels] + 1.6 * draw.normal(size=(len(labels), 32))
    return _split(np.maximum(0.5 * latent @ mixing + 0.1 * draw.normal(size=(len(labels), 256)) - 0.2, 0), labels)


def digits() -> ProbeData:
    from sklearn.datasets import load_digits

    found, draw = load_digits(), np.random.default_rng(2)
    rows = draw.integers(0, len(found.data), sum(SIZES))
    return _split(found.data[rows] / 16 + 0.25 * draw.normal(size=(len(rows), 64)), found.target[rows])


SETS: dict[str, Callable[[], ProbeData]] = {"crops of photographs": crops, "mixture": mixture, "noisy digits": digits}


def plain_logistic_regression(
    train: LabeledFeatures, requested: NDArray[Any], parameters: Parameters, seed: int
) -> Labels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=parameters["C"], max_iter=2000).fit(*train)
    return np.asarray(model.predict(requested))


def plain_sgd(train: LabeledFeatures, requested: NDArray[Any], parameters: Parameters, seed: int) -> Labels:
    """Fits by an independent loop with the schedule of the paper's authors: 100 epochs; epoch e uses the rate of e - 1.

    It starts from our initial weights and uses our batches, so only the search can differ.
    """
    torch.manual_seed(seed)
    features, labels = torch.nn.functional.normalize(torch.from_numpy(train[0])), torch.from_numpy(train[1])
    layer = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.SGD(
        layer.parameters(), parameters["learning_rate"], momentum=0.9, weight_decay=parameters["weight_decay"]
    )
    shuffle = torch.Generator().manual_seed(seed)
    for epoch in range(100):
        for batch in torch.randperm(len(labels), generator=shuffle).split(1024):
            loss = torch.nn.functional.cross_entropy(layer(features[batch]), labels[batch])
            if not math.isfinite(loss.item()):
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for settings in optimizer.param_groups:
            settings["lr"] = parameters["learning_rate"] * 0.5 * (1 + math.cos(math.pi * epoch / 100))
    with torch.inference_mode():
        return layer(torch.nn.functional.normalize(torch.from_numpy(requested))).argmax(1).numpy()


PROBES: dict[str, tuple[Any, Callable[..., Labels]]] = {
    "logistic_regression": (logistic_regression, plain_logistic_regression),
    "sgd": (sgd, plain_sgd),
}


@cache
def data_of(name: str) -> ProbeData:
    return SETS[name]()


def both(job: tuple[str, str, int]) -> tuple[float, float]:
    """Returns top-1 on the test split for our search and for the plain one."""
    torch.set_num_threads(1)
    name, probe, seed = job
    data, (module, fit) = data_of(name), PROBES[probe]
    with tempfile.TemporaryDirectory() as folder:
        mine = run_probe(probe, data, num_trials=NUM_TRIALS, seed=seed, study=Path(folder)).top1
    with tempfile.TemporaryDirectory() as folder:
        search = Search(Path(folder), NUM_TRIALS, seed, sampler=getattr(module, "SAMPLER", {}))
        trials = search.run(
            module.suggest, lambda parameters: top1(fit(data.train, data.val[0], parameters, seed), data.val[1])
        )
    best = max(trials, key=lambda trial: (trial.value or 0.0, -trial.number)).params
    return mine, top1(fit(data.both, data.test[0], best, seed), data.test[1])


def num_different(name: str) -> int:
    """Counts predictions of the final fit that differ from plain scikit-learn's, over several C."""
    data = data_of(name)
    final = logistic_regression.open_final(data, seed=0)
    found = [final({"C": c}) != plain_logistic_regression(data.both, data.test[0], {"C": c}, 0) for c in SOME_C]
    return int(np.sum(found))


def main(num_seeds: int) -> None:
    lines = [
        f"{SIZES[0]} + {SIZES[1]} rows to fit on, {SIZES[2]:,} rows to test on; {NUM_TRIALS} trials, {num_seeds} seeds.",
        "",
        f"Predictions of the final fit that differ from plain scikit-learn's, of {len(SOME_C) * SIZES[2]:,} at "
        f"{len(SOME_C)} values of C: " + ", ".join(f"{num_different(name)} ({name})" for name in SETS),
        "",
        "| probe | features | top-1, ours | top-1, plain | difference (95 % interval) | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for probe in PROBES:
            for name in SETS:
                found = pool.map(both, [(name, probe, seed) for seed in range(num_seeds)], chunksize=1)
                differences = [mine - plain for mine, plain in found]
                mean, half = statistics.mean(differences), 0.0
                if num_seeds > 1:
                    half = T_95.get(num_seeds, 2.26) * statistics.stdev(differences) / num_seeds**0.5
                lines.append(
                    f"| {probe.replace('_', ' ')} | {name} | {statistics.mean(m for m, _ in found):.2f} | "
                    f"{statistics.mean(p for _, p in found):.2f} | {mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f}) | "
                    f"{max(differences, key=abs):+.2f} |"
                )
                print(lines[-1], flush=True)
    record("probes-plain", "Probes compared with plain ones", lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
