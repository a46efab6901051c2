"""Reads files of network weights from any source.

Only tensors are read (`weights_only`, safetensors), so no file can run code.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

WRAPPINGS = ("state_dict", "model", "network", "teacher", "student")
"""Keys under which training scripts keep the state dict in a checkpoint."""
MAX_WRAPPINGS = 3
PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "backbone.", "encoder.")
"""Prefixes of tensor names that wrappers around the network add."""


def read_state_dict(path: Path) -> "dict[str, Tensor]":
    """Reads the state dict in a .safetensors or .pth file, without wrappings and without prefixes that all names share.

    Raises:
        UserError: the file cannot be read, holds more than tensors, or holds no tensors.
    """
    return _named_plainly(_read(path), path)


def misfit(found: "Mapping[str, Tensor]", expected: "Mapping[str, Tensor]", fresh: list[str]) -> str:
    """Returns why weights do not fit a network with the weights `expected`, as the end of a sentence; "" if they fit.

    Weights that `fresh` names, and counters of batches, may be missing.
    """
    import torch

    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    unusable = [
        name
        for name, tensor in found.items()
        if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized
    ]
    for what, names in (
        ("has no plain numbers in", unusable),
        ("lacks", [name for name in expected if name not in found and name not in fresh and name not in counters]),
        ("also has", [name for name in found if name not in expected]),
        ("has another shape for", [n for n in expected if n in found and found[n].shape != expected[n].shape]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"it {what} {', '.join(names[:3])}{more}"
    return ""


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        with warnings.catch_warnings():
            # Hides warnings about pickle protocols; a file that cannot be read is reported below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # zip, pickle, safetensors and torch each raise exceptions of their own.
        raise UserError(
            f"'{path}' cannot be read as tensors alone ({first_line(error)}); save nothing but its state dict"
        ) from None


def _named_plainly(content: Any, path: Path) -> "dict[str, Tensor]":
    from torch import Tensor

    for _ in range(MAX_WRAPPINGS):
        held = content if isinstance(content, dict) else {}
        inner = next((held[name] for name in WRAPPINGS if isinstance(held.get(name), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        raise UserError(f"'{path}' holds no state dict; save one with torch.save(network.state_dict(), …)")
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise UserError(f"'{path}' holds no tensors; save a state dict with torch.save(network.state_dict(), …)")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found
