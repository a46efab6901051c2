"""The learning rate (supplementary, section 1) and the decay of the weights' average as functions of the step."""

import math


def warm_up_cosine(step: int, num_steps: int, peak: float, warm_up: float, lowest: float = 0.0) -> float:
    """Returns the learning rate at a step, counted from 0.

    The rate rises linearly to `peak` over the fraction `warm_up` of the steps, then falls towards `lowest` as a cosine.
    """
    num_warm_up = round(warm_up * num_steps)
    if step < num_warm_up:
        return peak * (step + 1) / num_warm_up
    progress = (step - num_warm_up) / max(1, num_steps - num_warm_up)
    return lowest + (peak - lowest) * 0.5 * (1 + math.cos(math.pi * progress))


def ema_decay(step: int, decay: float, *, has_warm_up: bool) -> float:
    """Returns the decay of the exponential moving average at a step: with a warm-up, at most (1 + step) / (10 + step)."""
    return min(decay, (1 + step) / (10 + step)) if has_warm_up else decay
