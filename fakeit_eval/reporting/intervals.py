"""Confidence intervals of accuracies."""

CONFIDENCE = 0.95


def interval(num_right: int, num_images: int) -> list[float]:
    """Wilson's 95 % interval of an accuracy, in percent: [low, high]."""
    from scipy.stats import binomtest

    found = binomtest(num_right, num_images).proportion_ci(CONFIDENCE, method="wilson")
    return [round(100 * float(found.low), 4), round(100 * float(found.high), 4)]
