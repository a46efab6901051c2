"""Logistic regression by scikit-learn's L-BFGS, on float32 features of numpy or, through its array API, of torch.

Every fit starts from zero: at large C the solution depends on the start.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # SciPy reads it at its first import

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

MAX_ITERATIONS = 2000
"""Iterations of L-BFGS."""


def fit(c: float, known: tuple[Any, Any], *, max_iterations: int = MAX_ITERATIONS) -> "LogisticRegression":
    """Fits features (n, d) and labels (n,), starting from zero.

    Args:
        c: Inverse strength of the regularization.
        known: Both as numpy arrays, or both as tensors on one device.
        max_iterations: Iterations of L-BFGS at most.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=max_iterations)
    with _array_api(known[0]), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(*known)
    return model


def predict(model: "LogisticRegression", features: Any) -> NDArray[np.int64]:
    """Returns the predicted labels (n,) of features (n, d)."""
    import torch

    with _array_api(features):
        return np.asarray(torch.as_tensor(model.predict(features)).cpu(), dtype=np.int64)


@contextmanager
def _array_api(features: Any) -> Iterator[None]:
    """Lets scikit-learn compute with tensors; for numpy it needs nothing."""
    import sklearn

    with sklearn.config_context(array_api_dispatch=not isinstance(features, np.ndarray)):
        yield
