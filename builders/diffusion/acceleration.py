"""Settings that make a loaded pipeline faster or smaller: those of an execution, and those of a recipe.

docs/speed.md says what each does to images: exact, close or other. A setting that is "other" is a field of the recipe.
"""

from typing import Any

import torch
from torch import nn

from builders.errors import UserError, first_line, missing_extra
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe


def denoiser_of(pipeline: Any) -> Any:
    """Returns the network of a pipeline that runs at every step: a UNet or a transformer; None where it has neither."""
    return getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)


def accelerate(pipeline: Any, recipe: Recipe, execution: Execution) -> None:
    """Changes a pipeline in place; called once, when it lies on its device.

    Raises:
        UserError: the model does not have what a setting of the recipe needs.
    """
    denoiser, modules = denoiser_of(pipeline), pipeline.components
    changes = (recipe.quantization, recipe.attention_backend, recipe.first_block_cache, execution.compile)
    if denoiser is None and any(changes):
        raise UserError(
            f"a {type(pipeline).__name__} has no UNet or transformer that could be changed; leave it as it is"
        )
    if recipe.quantization:
        _quantize(denoiser)
    if execution.channels_last:
        # Videos' autoencoders, such as Qwen-Image's, have weights of five dimensions, which this format does not fit.
        convolutions = [p for n in ("unet", "vae") if n in modules for p in modules[n].parameters() if p.dim() == 4]
        for weights in convolutions:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    if execution.vae_slicing:
        modules["vae"].enable_slicing()
    if recipe.vae_tiling:
        modules["vae"].enable_tiling()
    if recipe.attention_backend:
        _set_attention_backend(denoiser, recipe.attention_backend)
    if recipe.first_block_cache:
        _enable_first_block_cache(denoiser, recipe.first_block_cache)
    if execution.compile:
        _compile(denoiser)


def _compile(denoiser: Any) -> None:
    """Compiles the blocks that the denoiser repeats, once for all of them; the whole of it where it names none."""
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks(fullgraph=True, dynamic=False)
    else:
        denoiser.compile(dynamic=False)


def _quantize(denoiser: nn.Module) -> None:
    """Stores the weights of linear layers as int8 with a scale for each row; products are computed as before."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torchao", "int8") from None
    quantize_(denoiser, Int8WeightOnlyConfig())


def _set_attention_backend(denoiser: Any, name: str) -> None:
    processors = getattr(denoiser, "attn_processors", {}).values()
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise UserError(
            f"--attention-backend {name} changes nothing, because {type(denoiser).__name__} has no choice of attention; "
            "leave it out"
        )
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        denoiser.set_attention_backend(name)
    except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
        raise UserError(f"attention backend '{name}' cannot be used ({first_line(error)}); choose another") from None
    finally:
        # The call also sets the default of all models, which would outlive this one.
        _AttentionBackendRegistry.set_active_backend(before)


def _enable_first_block_cache(denoiser: Any, threshold: float) -> None:
    from diffusers import FirstBlockCacheConfig

    refusal = UserError(
        f"--first-block-cache {threshold:g} is not possible with {type(denoiser).__name__}, which diffusers does not cache; "
        "leave it out"
    )
    if not hasattr(denoiser, "enable_cache"):
        raise refusal
    try:
        denoiser.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    except (ValueError, KeyError):
        raise refusal from None
