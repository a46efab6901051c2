"""Reads features of any model from a .npz or .safetensors file.

The file has X_train, y_train, X_test, y_test, and perhaps X_val and y_val. X are floats (n, d), y class numbers (n,).
From a file with only X and y, `probe` draws random splits; `analyze` measures it as a whole."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError, first_line
from fakeit_eval.reporting.results import as_file_name

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class FeatureFile:
    name: str
    trained_on: str
    sha256: str
    out: Path
    splits: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]
    """Features (n, d) and labels (n,) of each split; the only key is "all" if the file has no splits."""


def read_feature_file(path: Path, out: Path | None = None) -> FeatureFile:
    """Reads the features in a file; no code in the file can run.

    Args:
        out: Folder in which `results` is written; by default `evaluations/<name>`.

    Raises:
        UserError: the file cannot be read, an array is missing, or arrays do not fit each other.
    """
    arrays = _read(path)
    names = {split: (f"X_{split}", f"y_{split}") for split in SPLITS if f"X_{split}" in arrays} or {"all": ("X", "y")}
    splits = {split: _split(path, arrays, *pair) for split, pair in names.items()}
    splits = _numbered(splits)
    sizes = {features.shape[1] for features, _ in splits.values()}
    if len(sizes) > 1:
        raise UserError(f"the splits in '{path}' have {sorted(sizes)} dimensions; extract them with one model")
    if "all" not in splits and not {"train", "test"} <= set(splits):
        raise UserError(
            f"'{path}' has only {', '.join(splits)}; it needs X_train, y_train, X_test and y_test, or X and y"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = out or Path("evaluations") / as_file_name(path.stem)
    return FeatureFile(path.stem, "features of a file", f"sha256:{digest}", folder, splits)


def _numbered(splits: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Renumbers the labels of all splits from 0 without gaps, in the order of the original numbers."""
    known = np.unique(np.concatenate([labels for _, labels in splits.values()]))
    return {split: (features, np.searchsorted(known, labels)) for split, (features, labels) in splits.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # zip, npy and safetensors each raise errors of their own
        raise UserError(
            f"'{path}' cannot be read as plain arrays ({first_line(error)}); save X_train, y_train, X_test and y_test with "
            "numpy.savez or safetensors"
        ) from None


def _split(path: Path, arrays: dict[str, Any], x: str, y: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    for name in (x, y):
        if name not in arrays:
            raise UserError(f"'{path}' has no array '{name}' among {', '.join(sorted(arrays)[:10])}; save one")
    features, labels = np.asarray(arrays[x]), np.asarray(arrays[y])
    if features.ndim != 2 or features.dtype.kind != "f" or not features.size:
        raise UserError(f"'{x}' in '{path}' is {features.dtype} {features.shape}, but must be floats (n, d)")
    if labels.shape != features.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(
            f"'{y}' in '{path}' is {labels.dtype} {labels.shape}, but must be class numbers from 0 on, one for each of "
            f"the {len(features)} rows of '{x}'"
        )
    return features.astype(np.float32, copy=False), labels.astype(np.int64)
