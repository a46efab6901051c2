"""The folder of a run: writes config.json, and compares it with the configuration of a resumed run."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from builders.errors import UserError
from builders.networks.backbone import DESCRIPTION, Backbone, save_backbone
from fakeit_train.checkpoint import has_checkpoint
from fakeit_train.config import TrainConfig
from fakeit_train.data.mixture import Mixture

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE, LOCK = "config.json", ".lock"
SECONDS_OF_A_LOCK = 120
"""Seconds to wait for a lock, which some file systems keep for a while after a machine is lost."""
BEST, SCORES = "best", "scores.json"
"""Folder of a run with the network that was the best in validation, and the file with its scores there."""
FREE_SETTINGS = {
    "checkpoint_every", "keep_checkpoints", "log_every", "log_keys", "log_to", "data.num_workers", "data.cache_dir",
    "data.cache_gib", "data.exclude", "data_urls", "validation.data", "validation.every", "validation.batch_size",
    "validation.keep_best", "validation.knn", "validation.linear_probe", "validation.num_known", "optim.accumulation",
    "compile", "timeout_minutes",
}  # fmt: skip
"""Settings that may change when a run is resumed. The digest of the `data.exclude` list must stay the same."""


def describe_run(config: TrainConfig, data: Mixture) -> dict[str, Any]:
    """Returns the content of config.json as plain JSON values."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return {
        **fields,
        "data_urls": [clone.root for clone in data.clones],
        "clone_digests": [clone.manifest.digest for clone in data.clones],
        "excluded_digest": data.excluded,
        "num_broken_left_out": data.num_broken,
    }


@contextmanager
def locked_run(out: Path, is_main: bool) -> Iterator[None]:
    """Keeps the main ranks of other processes from a run's folder; the system releases it if this one is killed.

    Raises:
        UserError: another process trains there.
    """
    if not is_main:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCK, timeout=SECONDS_OF_A_LOCK, is_singleton=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"another process trains in '{out}'; let it end, or choose another --out") from None
    except OSError as error:
        warnings.warn(f"'{out}' cannot be locked ({error.strerror}); let no other process train there", stacklevel=2)
    try:
        yield
    finally:
        lock.release()


def open_run(described: dict[str, Any], out: Path, resume: bool) -> None:
    """Writes config.json, after a comparison with the existing one if the run is resumed.

    Raises:
        UserError: the folder holds another run, or this one without `resume`.
    """
    path = out / CONFIG_FILE
    # A run without a checkpoint or an export has nothing to lose.
    if has_checkpoint(out / "checkpoint") or (out / DESCRIPTION).is_file():
        if not resume:
            raise UserError(f"'{out}' already holds a run; add --resume to continue it, or choose another --out")
        try:
            old, new = _fixed_settings(json.loads(path.read_text(encoding="utf-8"))), _fixed_settings(described)
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"'{path}' cannot be read ({error}); choose another --out") from None
        differing = [
            name for name in dict.fromkeys([*new, *old]) if name not in old or name not in new or old[name] != new[name]
        ]
        if differing:
            raise UserError(f"'{out}' holds a run with different {', '.join(differing)}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{CONFIG_FILE}.tmp")
    scratch.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)


def _fixed_settings(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the settings that a resumed run must keep, by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        nested = _fixed_settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        flat |= {key: item for key, item in nested.items() if key not in FREE_SETTINGS}
    return flat


def best_score(out: Path, data: str, name: str) -> float:
    """Returns the score `name` of the network in `out/best` on the validation images `data`; -1 without one."""
    try:
        scores = json.loads((out / BEST / SCORES).read_text(encoding="utf-8"))
        return float(scores[name]) if scores["data"] == data else -1.0
    except (OSError, ValueError, KeyError, TypeError):
        return -1.0


def save_best(out: Path, backbone: Backbone, network: "nn.Module", scores: dict[str, Any]) -> None:
    """Exports a network to `out/best`, and its scores after it."""
    folder = out / BEST
    folder.mkdir(exist_ok=True)
    save_backbone(folder, backbone, network)
    scratch = folder / f".{SCORES}.tmp"
    scratch.write_text(json.dumps(scores) + "\n", encoding="utf-8")
    scratch.replace(folder / SCORES)
