"""The floating-point precision of a run, and what `precision=auto` selects on a device."""

import torch


def precision_on(device: torch.device, configured: str) -> str:
    """Returns float32, bfloat16 or float16; "auto" selects a 16-bit format on a GPU and float32 on a CPU.

    GPUs before Ampere (V100, T4) emulate bfloat16, which is slow. "auto" selects float16 with loss scaling for them.
    """
    if configured != "auto":
        return configured
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
