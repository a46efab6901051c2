"""Checkpoints: tensors by name and a step number, written atomically and verified by hash when they are read.

Invariant: a checkpoint `step-N.safetensors` counts once `step-N.json` beside it names its hash. The newest whole one is
loaded. Checkpoints are safetensors files, without pickled objects.
"""

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from builders.errors import UserError, first_line
from fakeit_train.config import TrainConfig
from fakeit_train.objectives.base import Objective
from fakeit_train.precision import precision_on

OBJECTIVE, OPTIMIZER, COUNTER, AVERAGE = "objective.", "optimizer.", "counter.", "average."
"""Prefixes of tensor names in a checkpoint."""
SCALER = "scaler"
LAYOUT = "2"
"""Version of the names; a checkpoint of another one is refused."""


@dataclass
class State:
    """Everything that a training step changes."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Loss scaler for float16; disabled for other precisions."""
    average: AveragedModel | None
    """Exponential moving average (EMA) of the network's weights; None without EMA."""

    @property
    def network(self) -> nn.Module:
        return self.objective.network

    @property
    def learned(self) -> nn.Module:
        """Returns the network to export: the EMA if there is one."""
        return self.average.module if self.average else self.objective.learned

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tensors of the state by name."""
        found = {OBJECTIVE + name: tensor.contiguous() for name, tensor in self.objective.state_dict().items()}
        for name, parameter in self.objective.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{OPTIMIZER}{name}/{key}"] = value.contiguous()
                elif not _is_number(value) and value is not None:
                    kind = f"{type(self.optimizer).__name__}'s '{key}' is a {type(value).__name__}"
                    raise UserError(f"{kind}, which a checkpoint cannot hold; choose another optimizer")
        for number, settings in enumerate(self.optimizer.param_groups):
            own = {key: value for key, value in settings.items() if isinstance(value, Tensor)}
            found |= {f"{COUNTER}{number}/{key}": value for key, value in own.items()}
        if self.average:
            found |= {AVERAGE + name: tensor.contiguous() for name, tensor in self.average.state_dict().items()}
        if self.scaler.is_enabled():
            scaler = self.scaler.state_dict()
            found[SCALER] = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64)
        return found

    def numbers(self) -> dict[str, Any]:
        """Returns what the optimizer keeps besides tensors: by parameter, and for each of its parameter groups.

        A parameter that has no state yet, as before the first update, is there with an empty one.
        """
        of_parameters = {
            name: {key: value for key, value in self.optimizer.state.get(parameter, {}).items() if _is_number(value)}
            for name, parameter in self.objective.named_parameters()
        }
        return {
            "parameters": of_parameters,
            "param_groups": [self._counters(one) for one in self.optimizer.param_groups],
        }

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Restores the state from the results of `tensors` and `numbers`.

        Raises:
            ValueError: a tensor is missing or has another shape, or a parameter has no state of the optimizer.
        """
        self.objective.load_state_dict(_named(tensors, OBJECTIVE))
        for name, parameter in self.objective.named_parameters():
            if name not in numbers["parameters"]:
                raise ValueError(f"it has no state of the optimizer for '{name}'")
            own = _named(tensors, f"{OPTIMIZER}{name}/")
            state = {**{key: _like(value, parameter) for key, value in own.items()}, **numbers["parameters"][name]}
            if state:
                self.optimizer.state[parameter] = state
        if len(numbers["param_groups"]) != len(self.optimizer.param_groups):
            raise ValueError("the optimizer has other parameter groups")
        for number, settings in enumerate(self.optimizer.param_groups):
            settings.update(numbers["param_groups"][number], **_named(tensors, f"{COUNTER}{number}/"))
        if self.average:
            self.average.load_state_dict(_named(tensors, AVERAGE))
        if self.scaler.is_enabled():
            scale, tracker = tensors[SCALER].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})

    def _counters(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Returns the numbers that an optimizer counts in a parameter group, such as its steps; no hyperparameters."""
        return {
            name: value
            for name, value in settings.items()
            if _is_number(value) and name not in self.optimizer.defaults and name not in ("lr", "lr_scale")
        }


def make_state(objective: Objective, optimizer: torch.optim.Optimizer, config: TrainConfig, device: str) -> State:
    """Returns the state before the first step."""
    average = None
    if config.optim.ema:
        average = AveragedModel(
            objective.network, multi_avg_fn=get_ema_multi_avg_fn(config.optim.ema), use_buffers=True
        )
    return State(
        objective,
        optimizer,
        torch.amp.GradScaler(device, enabled=precision_on(torch.device(device), config.precision) == "float16"),
        average,
    )


def save_checkpoint(folder: Path, step: int, state: State, *, num_kept: int) -> None:
    """Saves the state after `step` steps, and deletes all but the newest `num_kept` checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    scratch = folder / f".{path.name}.tmp"
    save_file(state.tensors(), scratch, {"layout": LAYOUT, "numbers": json.dumps(state.numbers())})
    facts = {"step": step, "sha256": _sha256(scratch)}
    _rename_to_disk(scratch, path)
    scratch = folder / f".{path.stem}.json.tmp"
    scratch.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    _rename_to_disk(scratch, path.with_suffix(".json"))
    for old in _steps(folder)[num_kept:]:
        for suffix in (".json", ".safetensors"):
            (folder / f"step-{old:08d}{suffix}").unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    return bool(_steps(folder))


def newest_whole(folder: Path) -> int:
    """Returns the step of the newest checkpoint whose bytes have their hash, 0 without any checkpoint.

    It warns of newer ones that are damaged.

    Raises:
        UserError: all checkpoints are damaged.
    """
    steps = _steps(folder)
    for step in steps:
        path = folder / f"step-{step:08d}.safetensors"
        try:
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if facts["sha256"] == _sha256(path):
                return step
        except (OSError, ValueError, KeyError, TypeError):
            pass
        warnings.warn(f"checkpoint '{path}' is missing or damaged; an older one is used", stacklevel=2)
    if steps:
        raise UserError(f"all checkpoints in '{folder}' are damaged; remove it to train from the start")
    return 0


def load_checkpoint(folder: Path, step: int, state: State) -> None:
    """Restores the checkpoint of a step, which `newest_whole` found, into `state`.

    Raises:
        UserError: it is not on this machine, has another layout, or does not fit the objective or the optimizer.
    """
    path = folder / f"step-{step:08d}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("layout") != LAYOUT:
                raise UserError(f"checkpoint '{path}' is from another version of fakeit; finish the run with that one")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state.load(tensors, json.loads(metadata["numbers"]))
    except FileNotFoundError:
        raise UserError(
            f"there is no checkpoint '{path}' on this machine; give --out a folder that all machines share"
        ) from None
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"checkpoint '{path}' does not fit this run ({first_line(error)}); choose another --out"
        ) from None


def _steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, newest first."""
    return sorted((int(path.stem.partition("-")[2]) for path in folder.glob("step-*.json")), reverse=True)


def _rename_to_disk(scratch: Path, path: Path) -> None:
    """Renames a file, and returns once it is on the disk; after a crash of the machine, a name holds a whole file."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Returns a tensor of the optimizer's state on the device of its parameter, and in its memory layout."""
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    # Counters of steps stay where the optimizer made them, which is the CPU.
    return value if value.ndim == 0 else value.to(parameter.device)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
