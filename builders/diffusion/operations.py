"""Counts a model's operations for one image, from its configuration alone: its modules are made without weights.

torch's counter counts a multiplication and an addition as two operations. Prompts are embedded once and kept, so text
encoders are left out.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from builders.diffusion.family import Family
from builders.diffusion.guidance_interval import is_guided_at
from builders.diffusion.loading import load_family
from builders.diffusion.pin import model_directory
from builders.errors import ReadableError, UserError, first_line
from builders.recipes.recipe import Recipe
from builders.recipes.timestep_interval import parse_interval
from builders.storage.hub_error import hub_error

CLIP_TOKENS = 77
USUAL_TOKENS = 64
"""Length of a prompt where a pipeline pads it to the longest of its batch."""


@dataclass(frozen=True)
class Count:
    """Operations of one call of a module on one image, as torch counts them."""

    total: int
    attention: int
    """The products within attention (queries by keys, weights by values) among them."""


@dataclass(frozen=True)
class Operations:
    denoiser: Count
    """One pass of the denoiser for one image."""
    decoder: Count
    num_timesteps: int
    num_passes: int
    """Passes of the denoiser for one image: one for each timestep, and one more for each guided timestep."""

    @property
    def image(self) -> Count:
        """All operations of one image."""
        return Count(
            self.num_passes * self.denoiser.total + self.decoder.total,
            self.num_passes * self.denoiser.attention + self.decoder.attention,
        )


def count_operations(recipe: Recipe, num_tokens: int | None = None) -> Operations:
    """Returns the operations of one image of a recipe.

    Args:
        num_tokens: Length of the text that the denoiser reads; by default what the model's family pads prompts to.

    Raises:
        UserError: the configuration cannot be read, or the denoiser's inputs are not known.
        UnreachableError: the Hub does not answer.
    """
    import diffusers

    try:
        source = model_directory(recipe) or _download(recipe)
        family = load_family(recipe)
        index = diffusers.DiffusionPipeline.load_config(source)
        folder = "unet" if "unet" in index else "transformer"
        denoiser, vae = (_module(index, name, source) for name in (folder, "vae"))
        scheduler = getattr(diffusers, recipe.scheduler or index["scheduler"][1])
        scheduler = scheduler.from_pretrained(source, subfolder="scheduler")
    except ReadableError:
        raise
    except Exception as error:  # the libraries raise all kinds of errors for a damaged directory or without a network
        raise hub_error(
            f"the configuration of '{recipe.model}' cannot be read", error, recipe.model, "give --model a directory"
        ) from None
    inputs = INPUTS.get(type(denoiser).__name__)
    if inputs is None:
        raise UserError(
            f"the operations of a {type(denoiser).__name__} are not counted; make a preview, and give --measured preview.json"
        )
    factor = vae_factor(vae.config)
    height, width = recipe.height // factor, recipe.width // factor
    tokens = num_tokens or _num_tokens(type(denoiser).__name__, family)
    with torch.device("meta"):
        arguments = inputs(denoiser.config, height, width, tokens)
        latents = torch.zeros(_latent_shape(vae.config, height, width))
    num_timesteps = _num_timesteps(scheduler, recipe)
    return Operations(
        denoiser=_count(denoiser, **arguments),
        decoder=_count(vae.decode, latents),
        num_timesteps=num_timesteps,
        num_passes=num_timesteps + num_guided(recipe, family, num_timesteps),
    )


def num_guided(recipe: Recipe, family: Family, num_timesteps: int) -> int:
    """Returns the number of timesteps with a second pass."""
    if not family.is_negative_used(recipe):
        return 0
    start, stop = parse_interval(recipe.guidance_interval)
    return sum(is_guided_at(index, num_timesteps, start, stop) for index in range(num_timesteps))


def vae_factor(config: Mapping[str, Any]) -> int:
    """Returns how many pixels of the image's side are one latent's."""
    if "temperal_downsample" in config:
        return int(2 ** len(config["temperal_downsample"]))
    blocks = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def _download(recipe: Recipe) -> str:
    """Returns a directory with the configuration of a model of the Hub."""
    import huggingface_hub

    patterns = ["model_index.json", "*/config.json", "scheduler/*.json"]
    return str(
        huggingface_hub.snapshot_download(recipe.model, revision=recipe.revision or None, allow_patterns=patterns)
    )


def _module(index: Mapping[str, Any], name: str, source: str) -> Any:
    """Returns a module of a pipeline without weights."""
    library, kind = index[name]
    cls = getattr(importlib.import_module(library), kind)
    config = cls.load_config(source, subfolder=name)
    with torch.device("meta"):
        return cls.from_config(config).eval()


def _count(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Count:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*arguments, **keywords)
    by_operator = {str(name): int(count) for name, count in counter.get_flop_counts().get("Global", {}).items()}
    attention = sum(count for name, count in by_operator.items() if "bmm" in name or "dot_product" in name)
    return Count(sum(by_operator.values()), attention)


def _num_timesteps(scheduler: Any, recipe: Recipe) -> int:
    try:
        scheduler.set_timesteps(recipe.num_inference_steps)
    except (TypeError, ValueError) as error:
        # Schedulers of flow matching shift their timesteps by the image's size, which does not change their number.
        if not scheduler.config.get("use_dynamic_shifting"):
            raise UserError(f"the model refuses a setting ({first_line(error)}); change that setting") from None
        return recipe.num_inference_steps
    return len(scheduler.timesteps)


def _num_tokens(denoiser: str, family: Family) -> int:
    if denoiser == "UNet2DConditionModel":
        return CLIP_TOKENS
    if denoiser == "SD3Transformer2DModel":
        return CLIP_TOKENS + (family.max_sequence_length or 0)
    return family.max_sequence_length or USUAL_TOKENS


def _latent_shape(config: Mapping[str, Any], height: int, width: int) -> tuple[int, ...]:
    if "z_dim" in config:
        return (1, config["z_dim"], 1, height, width)
    return (1, config["latent_channels"], height, width)


def _unet(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    added = {}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"added_cond_kwargs": {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}}
    return {
        "sample": torch.zeros(1, config.in_channels, height, width),
        "timestep": torch.zeros(1),
        "encoder_hidden_states": torch.zeros(1, tokens, config.cross_attention_dim),
        **added,
    }


def _sd3(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.zeros(1, config.in_channels, height, width),
        "encoder_hidden_states": torch.zeros(1, tokens, config.joint_attention_dim),
        "pooled_projections": torch.zeros(1, config.pooled_projection_dim),
        "timestep": torch.zeros(1),
    }


def _packed(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    """Inputs of transformers whose tokens are 2x2 latents."""
    return {
        "hidden_states": torch.zeros(1, height * width // 4, config.in_channels),
        "encoder_hidden_states": torch.zeros(1, tokens, config.joint_attention_dim),
        "timestep": torch.zeros(1),
    }


def _flux(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    return {
        **_packed(config, height, width, tokens),
        "pooled_projections": torch.zeros(1, config.pooled_projection_dim),
        "img_ids": torch.zeros(height * width // 4, 3),
        "txt_ids": torch.zeros(tokens, 3),
        **({"guidance": torch.zeros(1)} if config.guidance_embeds else {}),
    }


def _flux_2(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    return {
        **_packed(config, height, width, tokens),
        "img_ids": torch.zeros(1, height * width // 4, 4),
        "txt_ids": torch.zeros(1, tokens, 4),
        **({"guidance": torch.zeros(1)} if config.get("guidance_embeds", True) else {}),
    }


def _qwen(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    return {
        **_packed(config, height, width, tokens),
        "encoder_hidden_states_mask": torch.ones(1, tokens, dtype=torch.bool),
        "img_shapes": [[(1, height // 2, width // 2)]],
    }


def _captioned(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.zeros(1, config.in_channels, height, width),
        "encoder_hidden_states": torch.zeros(1, tokens, config.caption_channels),
        "timestep": torch.zeros(1),
    }


def _pixart(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    unused = {"resolution": None, "aspect_ratio": None}
    return {**_captioned(config, height, width, tokens), "added_cond_kwargs": unused}


def _z_image(config: Any, height: int, width: int, tokens: int) -> dict[str, Any]:
    return {
        "x": [torch.zeros(config.in_channels, 1, height, width)],
        "t": torch.zeros(1),
        "cap_feats": [torch.zeros(tokens, config.cap_feat_dim)],
    }


INPUTS: dict[str, Callable[[Any, int, int, int], dict[str, Any]]] = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux_2,
    "PixArtTransformer2DModel": _pixart,
    "SanaTransformer2DModel": _captioned,
    "QwenImageTransformer2DModel": _qwen,
    "ZImageTransformer2DModel": _z_image,
}
"""Inputs of a denoiser for one image, by the name of its class: a function of its configuration, the height and width of
the latents and the number of text tokens."""
