"""Reads a pickle as plain data without running code: lists, dicts, text, numbers, and numpy's arrays as lists.

A pickle is a program that may call any function. This reader knows what numpy's arrays are made of and nothing else, as
Python's documentation restricts pickles.
"""

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from builders.errors import UserError, first_line

RECONSTRUCT = np.empty(0).__reduce__()[0]
"""numpy's function that makes an array to fill; its module has other names in other versions."""
NUMPY = {"_reconstruct": RECONSTRUCT, "ndarray": np.ndarray, "dtype": np.dtype}
KNOWN = {
    # Old protocols write bytes as a call of `encode`.
    ("_codecs", "encode"): codecs.encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (f"numpy{name}", key): value
        for key, value in NUMPY.items()
        for name in ("", ".core.multiarray", "._core.multiarray")
    },
}


def read_plain_pickle(path: Path) -> Any:
    """Reads the data of a pickle.

    Raises:
        UserError: the file is missing or broken, or it needs more than plain data.
    """
    try:
        with path.open("rb") as file:
            return _plain(_PlainUnpickler(file).load())
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing; download it from the benchmark's authors") from None
    except _NotPlainError as error:
        raise UserError(
            f"'{path}' is a pickle that would call '{error}', so it is not read; download it from its authors again"
        ) from None
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(f"'{path}' cannot be read ({first_line(error)}); download it again") from None


class _NotPlainError(Exception):
    """The pickle needs something else than plain data; the message names it."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise _NotPlainError(f"{module}.{name}")
        return KNOWN[module, name]


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple | np.ndarray):
        return [_plain(value) for value in (found.tolist() if isinstance(found, np.ndarray) else found)]
    return found.decode() if isinstance(found, bytes) else found
