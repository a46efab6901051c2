import math

import numpy as np
import pytest
import torch

from fakeit_eval.probes import sgd
from fakeit_eval.probes.base import ProbeData, top1
from tests.fakeit_eval.probes.blobs import blobs

GOOD = {"learning_rate": 5.0, "weight_decay": 1e-6}


def plain_loop(data: ProbeData, batch_size: int) -> float:
    """Fits the same classifier by a plain training loop; returns its top-1 on val."""
    torch.manual_seed(0)
    unit, labels = torch.nn.functional.normalize(torch.from_numpy(data.train[0])), torch.from_numpy(data.train[1])
    network = torch.nn.Linear(8, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=5.0, momentum=0.9, weight_decay=1e-6)
    shuffle = torch.Generator().manual_seed(0)
    for epoch in range(100):
        for rows in torch.randperm(len(labels), generator=shuffle).split(batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(unit[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 5.0 * (1 + math.cos(math.pi * epoch / 100)) / 2
    with torch.no_grad():
        predicted = network(torch.nn.functional.normalize(torch.from_numpy(data.val[0]))).argmax(1).numpy()
    return top1(predicted, data.val[1])


@pytest.mark.parametrize("batch_size", [1024, 128])
def test_sgd__scores_are_those_of_a_plain_loop(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgd, "BATCH_SIZE", batch_size)
    data = blobs(noise=1.5)
    found = sgd.open_tuning(data, seed=0)(GOOD)
    assert found == pytest.approx(plain_loop(data, batch_size), abs=0.4)  # one sample of 300


def test_sgd__the_final_fit_is_seeded() -> None:
    data = blobs()
    final = sgd.open_final(data, seed=0)
    first, second = final(GOOD), final(GOOD)
    assert np.array_equal(first, second) and top1(first, data.test[1]) > 80


def test_sgd__two_epochs_run_at_the_full_rate_and_the_last_at_almost_zero() -> None:
    rates = [1.0, *(sgd.rate_after(epoch) for epoch in range(1, 100))]
    assert rates[:2] == [1.0, 1.0] and rates[2] == pytest.approx(0.5 * (1 + math.cos(math.pi / 100)))
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 98 / 100))) and rates == sorted(rates, reverse=True)


def test_sgd__a_diverging_fit_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    step = torch.optim.SGD.step

    def counted(self: torch.optim.SGD) -> None:
        steps.append(1)
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    assert 0 <= sgd.open_tuning(blobs(), seed=0)({"learning_rate": 1e30, "weight_decay": 1e-4}) <= 100
    assert len(steps) < 30  # of 100 epochs
    assert sgd.open_final(blobs(), seed=0)({"learning_rate": 1e30, "weight_decay": 1e-4}).shape == (
        len(blobs().test[1]),
    )
