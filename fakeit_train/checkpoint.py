"""Checkpoints: tensors and a step number, written atomically and verified by hash when they are read.

Invariant: `checkpoint/latest.json` names a complete file. Checkpoints are safetensors files, without pickled objects.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from builders.errors import UserError
from fakeit_train.config import TrainConfig
from fakeit_train.precision import precision_on

LATEST = "latest.json"
NETWORK, MOMENTUM, AVERAGE = "network.", "momentum.", "average."
"""Prefixes of tensor names in a checkpoint."""
SCALER = "scaler"


@dataclass
class State:
    """Everything that a training step changes."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Loss scaler for float16; disabled for other precisions."""
    average: AveragedModel | None
    """Exponential moving average (EMA) of the weights; None without EMA."""

    @property
    def learned(self) -> nn.Module:
        """Returns the network to export: the EMA if there is one."""
        return self.average.module if self.average else self.network

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tensors of the state by name."""
        found = {NETWORK + name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            # There is no buffer without momentum, or before the first gradient.
            if momentum is not None:
                found[MOMENTUM + name] = momentum.contiguous()
        if self.average:
            found |= {AVERAGE + name: tensor.contiguous() for name, tensor in self.average.state_dict().items()}
        if self.scaler.is_enabled():
            scaler = self.scaler.state_dict()
            found[SCALER] = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64)
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores the state from the result of `tensors`."""
        self.network.load_state_dict(_named(tensors, NETWORK))
        for name, parameter in self.network.named_parameters():
            if (momentum := tensors.get(MOMENTUM + name)) is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        if self.average:
            self.average.load_state_dict(_named(tensors, AVERAGE))
        if self.scaler.is_enabled():
            scale, tracker = tensors[SCALER].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})


def make_state(network: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, device: str) -> State:
    """Returns the state before the first step."""
    average = None
    if config.optim.ema:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.optim.ema), use_buffers=True)
    return State(
        network,
        optimizer,
        torch.amp.GradScaler(device, enabled=precision_on(torch.device(device), config.precision) == "float16"),
        average,
    )


def save_checkpoint(folder: Path, step: int, state: State, *, num_kept: int) -> None:
    """Saves the state after `step` steps, and deletes all but the newest `num_kept` checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    scratch = folder / f".{path.name}.tmp"
    save_file(state.tensors(), scratch)
    latest = {"file": path.name, "step": step, "sha256": _sha256(scratch)}
    scratch.replace(path)
    scratch = folder / f".{LATEST}.tmp"
    scratch.write_text(json.dumps(latest) + "\n", encoding="utf-8")
    scratch.replace(folder / LATEST)
    for old in sorted(folder.glob("step-*.safetensors"))[:-num_kept]:
        old.unlink()


def has_checkpoint(folder: Path) -> bool:
    return (folder / LATEST).is_file()


def load_checkpoint(folder: Path, state: State) -> int:
    """Restores the latest checkpoint into `state`; returns its number of steps, or 0 without a checkpoint.

    Raises:
        UserError: the checkpoint's file is missing or damaged.
    """
    if not has_checkpoint(folder):
        return 0
    try:
        latest = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        path, step, sha256 = folder / latest["file"], int(latest["step"]), latest["sha256"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{folder / LATEST}' cannot be read; remove '{folder}' to train from the start") from None
    if not path.is_file() or _sha256(path) != sha256:
        raise UserError(f"checkpoint '{path}' is missing or damaged; remove '{folder}' to train from the start")
    state.load(load_file(path))
    return step


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
