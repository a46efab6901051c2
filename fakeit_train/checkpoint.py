"""Checkpoints: tensors and a step number, written whole, checked by hash when they are read.

Invariant: `checkpoint/latest.json` names a file that is complete. No pickled objects: safetensors only.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from builders.format.errors import UserError

NUM_KEPT = 2
LATEST = "latest.json"
NETWORK, MOMENTUM = "network.", "momentum."
"""Prefixes of the tensors' names."""


def save_checkpoint(folder: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the state after `step` steps and removes all but the newest `NUM_KEPT`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    scratch = folder / f".{path.name}.tmp"
    save_file(_tensors(network, optimizer), scratch)
    latest = {"file": path.name, "step": step, "sha256": _sha256(scratch)}
    scratch.replace(path)
    scratch = folder / f".{LATEST}.tmp"
    scratch.write_text(json.dumps(latest) + "\n", encoding="utf-8")
    scratch.replace(folder / LATEST)
    for old in sorted(folder.glob("step-*.safetensors"))[:-NUM_KEPT]:
        old.unlink()


def load_checkpoint(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restores the latest state; the number of steps it has behind it, 0 where there is none.

    Raises:
        UserError: the file is missing or is not what was written.
    """
    if not (folder / LATEST).is_file():
        return 0
    try:
        latest = json.loads((folder / LATEST).read_text(encoding="utf-8"))
        path, step, sha256 = folder / latest["file"], int(latest["step"]), latest["sha256"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{folder / LATEST}' cannot be read; remove '{folder}' to train from the start") from None
    if not path.is_file() or _sha256(path) != sha256:
        raise UserError(f"checkpoint '{path}' is missing or damaged; remove '{folder}' to train from the start")
    tensors = load_file(path)
    network.load_state_dict(
        {name.removeprefix(NETWORK): tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}
    )
    for name, parameter in network.named_parameters():
        if (momentum := tensors.get(MOMENTUM + name)) is not None:
            optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
    return step


def _tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {NETWORK + name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:  # there is none without momentum, or before a first gradient
            tensors[MOMENTUM + name] = momentum.contiguous()
    return tensors


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
