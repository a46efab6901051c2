"""Reads a pickle as plain data without running code: lists, dicts, text, numbers, and numpy's arrays of text as lists.

A pickle is a program that may call any function. This reader allows only what builds the data named above, and replaces
numpy's classes by its own. Tuples become lists.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from builders.errors import UserError, first_line

MAX_BYTES = 2 * 2**30
"""Largest file that is read."""
MAX_DEPTH, MAX_ITEMS = 20, 20_000_000
"""Depth and number of items at which data are refused, since a small pickle can stand for endless data."""


def read_plain_pickle(path: Path) -> Any:
    """Reads the data of a pickle.

    Raises:
        UserError: the file is missing, broken or too large, or it needs more than plain data.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"'{path}' has more than {MAX_BYTES:,} bytes; download it again")
        with path.open("rb") as file:
            return _Plain().of(_PlainUnpickler(file).load())
    except _NotPlainError as error:
        raise UserError(
            f"'{path}' is a pickle that would call '{error}', so it is not read; download it from its authors again"
        ) from None
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing; download it from the benchmark's authors") from None
    except Exception as error:  # a broken pickle may raise anything
        raise UserError(f"'{path}' cannot be read ({first_line(error)}); download it again") from None


class _NotPlainError(Exception):
    """The pickle needs something else than plain data; the message names it."""


class _Type:
    """Stands for numpy's dtype; it keeps the type's code and byte order."""

    def __init__(self, code: str = "", *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])


class _Array:
    """Stands for numpy's ndarray; it accepts one-dimensional arrays of text or objects."""

    def __init__(self, *_: Any) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, _, content = state
        if not isinstance(kind, _Type) or len(shape) > 1:
            raise _NotPlainError("an array of another shape")
        if kind.code.startswith("O") and isinstance(content, list):
            self.values = content
        elif kind.code[:1] in ("U", "S") and kind.code[1:].isdecimal() and isinstance(content, bytes):
            order = kind.order if kind.order in "<>" else "<"
            width = int(kind.code[1:]) * (4 if kind.code[0] == "U" else 1)
            if not width or len(content) % width:
                raise _NotPlainError("an array of another size")
            found = np.frombuffer(content, dtype=f"{order}{kind.code}").tolist()
            self.values = [name.decode() if isinstance(name, bytes) else name for name in found]
        else:
            raise _NotPlainError(f"an array of {kind.code}")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = {
            "_reconstruct": lambda *_: _Array(),
            "ndarray": _Array,
            "dtype": _Type,
        }
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in known:
            return known[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        # Old protocols write bytes as a call of this function.
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: str(text).encode("latin-1")
        raise _NotPlainError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _NotPlainError("a persistent object")


class _Plain:
    """Converts unpickled data to plain data.

    Data that contain themselves exceed `MAX_DEPTH`; data that repeat an item many times exceed `MAX_ITEMS`.
    """

    def __init__(self) -> None:
        self.num_items = 0

    def of(self, found: Any, depth: int = 0) -> Any:
        self.num_items += 1
        if depth > MAX_DEPTH or self.num_items > MAX_ITEMS:
            raise _NotPlainError("data without end")
        if isinstance(found, _Array):
            found = found.values
        if isinstance(found, dict):
            return {key: self.of(value, depth + 1) for key, value in found.items()}
        if isinstance(found, list | tuple):
            return [self.of(value, depth + 1) for value in found]
        if isinstance(found, str | int | float | bytes | type(None)):
            return found
        raise _NotPlainError(type(found).__name__)
