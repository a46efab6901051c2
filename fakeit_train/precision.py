"""The floating-point precision of a run, and torch's global settings."""

import os

import torch

from fakeit_train.config import TrainConfig


def precision_on(device: torch.device, configured: str) -> str:
    """Returns float32, bfloat16 or float16; "auto" selects a 16-bit format on a GPU and float32 on a CPU.

    GPUs before Ampere (V100, T4) emulate bfloat16, which is slow. "auto" selects float16 with loss scaling for them.
    """
    if configured != "auto":
        return configured
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def prepare_torch(config: TrainConfig, device: str) -> None:
    """Sets torch's global state: the seed of the initial weights, determinism and precision of kernels."""
    torch.manual_seed(config.data.seed % 2**63)
    if config.deterministic:
        # cuBLAS reads this at the first matrix product on the GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    # Autotuning is quick, because crops have two sizes.
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.allow_tf32 = config.precision != "float32"
    if device == "cuda" and config.precision != "float32":
        torch.set_float32_matmul_precision("high")
