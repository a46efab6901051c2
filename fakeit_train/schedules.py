"""The learning rate as a function of the step (supplementary, section 1)."""

import math


def warm_up_cosine(step: int, num_steps: int, peak: float, warm_up: float) -> float:
    """Returns the learning rate at a step, counted from 0.

    The rate rises linearly to `peak` over the fraction `warm_up` of the steps, then falls towards 0 as a cosine.
    """
    num_warm_up = round(warm_up * num_steps)
    if step < num_warm_up:
        return peak * (step + 1) / num_warm_up
    progress = (step - num_warm_up) / max(1, num_steps - num_warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
