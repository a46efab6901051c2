"""`--batch-size auto`: finds the smallest batch within 3 % of the best rate on the first worker's GPU.

All workers of an output use that size.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace

from builders.engines.base import engine
from builders.errors import OutOfMemoryError
from builders.format.names import MAKING
from builders.generation.generate_samples import Judge
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.storage.base import Storage

OnBatch = Callable[[int, int, int, int], object]
"""Called after each batch with the numbers of images kept, of first attempts, and of first attempts that are broken or
that a check rejects. Zeros only signal that the worker is alive."""

CHOSEN = f"{MAKING}/batch-size.json"
SLACK = 0.03
MAX_BATCH = 256
MIN_GAIN = 0.01
"""Relative gain in rate below which a doubling counts as none; the search ends after two of those in a row."""
NUM_TIMED = 2
"""Number of batches that are timed, after one warm-up batch; the fastest counts."""


def shared_batch_size(
    plan: Plan, storage: Storage, execution: Execution, tell: OnBatch, on_measure: Callable[[], object] = lambda: None
) -> Execution:
    """Returns the execution with the batch size that an output's first worker measured; the first worker measures it.

    Raises:
        OutOfMemoryError: not even a batch of one image fits.
    """
    size = _read(storage)
    if not size:
        on_measure()
        size = choose(_rates(plan, execution, tell))
        # Another worker may have stored its size in the meantime.
        size = _read(storage) or size
        storage.write(CHOSEN, json.dumps({"batch_size": size}).encode())
    return replace(execution, batch_size=size)


def choose(rates: dict[int, float]) -> int:
    """Returns the smallest batch size whose rate is within 3 % of the best.

    Args:
        rates: Images per second, by batch size.
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= (1 - SLACK) * best)


def _rates(plan: Plan, execution: Execution, tell: OnBatch) -> dict[int, float]:
    """Measures images per second for batches of 1, 2, 4, … until memory is full or two doublings gain nothing."""
    rates: dict[int, float] = {}
    size, num_without_gain = 1, 0
    while size <= MAX_BATCH and num_without_gain < 2:
        try:
            rate = _rate(plan, replace(execution, batch_size=size), tell)
        except OutOfMemoryError:
            if not rates:
                raise
            break
        num_without_gain = num_without_gain + 1 if rate < (1 + MIN_GAIN) * max(rates.values(), default=0.0) else 0
        rates[size] = rate
        size *= 2
    return rates


def _rate(plan: Plan, execution: Execution, tell: OnBatch) -> float:
    generate = engine(plan.recipe.engine).load(plan.recipe, execution)
    judge = Judge(plan.recipe, execution.batch_size)
    batch = [(number, plan.sample_at(number % plan.num_samples), "") for number in range(execution.batch_size)]
    seconds = []
    for _ in range(1 + NUM_TIMED):
        begun = time.perf_counter()
        judge(batch, generate([sample for _, sample, _ in batch]))
        seconds.append(time.perf_counter() - begun)
        tell(0, 0, 0, 0)
    return execution.batch_size / min(seconds[1:])


def _read(storage: Storage) -> int:
    try:
        return int(json.loads(storage.read(CHOSEN))["batch_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
