"""Drives a pipeline that is not in the table of families by the signature of its call."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from builders.diffusion.families import EXACT_SIZE
from builders.diffusion.family import NEVER, Family
from builders.errors import UserError

NEEDED = ("prompt", "generator", "num_inference_steps", "output_type", "width", "height")
REFUSED = ("image", "mask_image", "control_image", "video", "num_frames")
"""Arguments of pipelines that need more than a prompt, or generate videos."""
GUIDANCE = ("guidance_scale", "true_cfg_scale")


def family_of_signature(model: str, pipeline: str, config: Mapping[str, Any]) -> Family:
    """Returns how to call a pipeline of diffusers, one image at a time, because nobody has compared its neighbors.

    Raises:
        UserError: there is no such class, or its signature does not say enough.
    """
    import diffusers

    kind = getattr(diffusers, pipeline, None)
    if kind is None:
        raise UserError(
            f"'{model}' is a {pipeline}, which this version of diffusers does not have; install a newer one"
        )
    return _family(model, kind, config)


def _family(model: str, kind: type, config: Mapping[str, Any]) -> Family:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(kind.__call__).parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    missing = [name for name in NEEDED if name not in parameters]
    required = [
        name
        for name, parameter in parameters.items()
        if name in REFUSED or (parameter.default is parameter.empty and name != "prompt")
    ]
    size = config.get("sample_size") or parameters["height"].default if not missing else None
    if missing or required or not isinstance(size, int):
        reason = (
            f"has no {missing[0]}" if missing else f"needs {required[0]}" if required else "does not say its image size"
        )
        raise UserError(
            f"'{model}' is a {kind.__name__}, which is not in the table of families, and its call {reason}; choose another "
            "model, or add the family (docs/families.md)"
        )
    guidance = next((name for name in GUIDANCE if name in parameters), "")
    default = parameters[guidance].default if guidance else 1.0
    return Family(
        name=kind.__name__,
        pipeline=kind.__name__,
        is_in_table=False,
        guidance=guidance,
        acts_above=1.0 if guidance else NEVER,
        negative_prompt="guidance" if guidance and "negative_prompt" in parameters else "no",
        # Loading it says whether it has them.
        accelerations=("attention_backend", "first_block_cache"),
        takes_adapters=hasattr(kind, "load_lora_weights"),
        tokens={},
        max_batch_size=1,
        options={name: value for name, value in EXACT_SIZE.items() if name in parameters},
        size=size,
        num_inference_steps=int(parameters["num_inference_steps"].default),
        guidance_scale=float(default) if isinstance(default, int | float) and math.isfinite(default) else 1.0,
    )
