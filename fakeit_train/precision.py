"""The arithmetic of a run: what `precision=auto` is on a device."""

import torch


def precision_on(device: torch.device, configured: str) -> str:
    """float32, bfloat16 or float16. "auto" takes 16 bits that the card computes in by itself, and float32 on a CPU.

    Cards before Ampere (V100, T4) emulate bfloat16, which is slow; theirs is float16 with a scaled loss.
    """
    if configured != "auto":
        return configured
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
