"""Text-to-image pipelines with random weights in the real directory layout.

Code that can load them can also load real pipelines.
"""

import shutil
from pathlib import Path
from typing import Any

WORDS = "one two three digit a number inside sky"
BLOCKS = {"block_out_channels": (8, 8), "norm_num_groups": 4}


def write_tiny_pipeline(out: Path) -> None:
    """Writes a Stable Diffusion that generates 16x16 images."""
    import torch

    torch.manual_seed(0)
    stable_diffusion().save_pretrained(out, safe_serialization=True)


def write_tiny_checker(
    pipeline: Path, share: float = 0.3, prompts: tuple[str, ...] = ("one",), num_steps: int = 2, seed: int = 1
) -> float:
    """Adds a random safety checker to a Stable Diffusion pipeline. It flags `share` of the images of seeds 0 to 99.

    Returns the largest share that it flags of any one prompt's images.
    """
    import json

    import numpy as np
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
    from transformers import CLIPConfig, CLIPImageProcessorPil

    torch.manual_seed(seed)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = CLIPConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 8, "projection_dim": 16}, projection_dim=16
    )
    checker = StableDiffusionSafetyChecker(config).eval()
    extractor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    images = example_images(pipeline, prompts, num_steps)
    with torch.no_grad():
        checker.concept_embeds.normal_()
        pixels = extractor(list(images), return_tensors="pt").pixel_values
        embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
        checker.concept_embeds[0] = embeddings.mean(0) + 0.3 * torch.randn(16)
        scores = cosine_distance(embeddings, checker.concept_embeds)[:, 0]
        # No cosine reaches 2, so only the first concept, whose threshold is set below, flags images.
        checker.concept_embeds_weights.fill_(2.0)
        checker.special_care_embeds_weights.fill_(2.0)
        checker.concept_embeds_weights[0] = float(np.quantile(scores.numpy(), 1 - share))
    checker.save_pretrained(pipeline / "safety_checker")
    extractor.save_pretrained(pipeline / "feature_extractor")
    index = json.loads((pipeline / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (pipeline / "model_index.json").write_text(json.dumps(index, indent=1))
    flags = scores.numpy() > np.quantile(scores.numpy(), 1 - share)
    return max(float(flags[number :: len(prompts)].mean()) for number in range(len(prompts)))


def example_images(pipeline: Path, prompts: tuple[str, ...] = ("one",), num_steps: int = 2) -> Any:
    """Generates a hundred uint8 images (100, height, width, 3), taking the prompts in turn."""
    import diffusers
    import torch

    loaded = diffusers.DiffusionPipeline.from_pretrained(pipeline, safety_checker=None, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(100)]
    size = loaded.unet.config.sample_size * loaded.vae_scale_factor
    found = loaded(
        [prompts[seed % len(prompts)] for seed in range(100)],
        generator=generators,
        num_inference_steps=num_steps,
        height=size,
        width=size,
        output_type="np",
    ).images
    return (found * 255).round().astype("uint8")


def _tokenizer() -> Any:
    from builders.embedded.train import train_tokenizer

    return train_tokenizer([WORDS])


def t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *[(f"▁{word}", -1.0) for word in WORDS.split()]]
    return T5TokenizerFast(vocab=pieces, extra_ids=0)


def _text_config(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5(tokenizer: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    return T5EncoderModel(config)


def autoencoder(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **{
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4,
            **BLOCKS,
            **options,
        }
    )


def _unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        **{"sample_size": 8, **options},
    )


def stable_diffusion(scheduler: Any = None, **unet_options: Any) -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    tokenizer = _tokenizer()
    return StableDiffusionPipeline(
        vae=autoencoder(),
        unet=_unet(cross_attention_dim=32, attention_head_dim=4, **unet_options),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        tokenizer=tokenizer,
        scheduler=scheduler or PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler: Any = None, sample_size: int = 8) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = _tokenizer()
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        unet=_unet(
            sample_size=sample_size,
            cross_attention_dim=64,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            transformer_layers_per_block=1,
        ),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=scheduler
        or EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def stable_diffusion_3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    tokenizer, pieces = _tokenizer(), t5_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            out_channels=4,
            pos_embed_max_size=96,
        ),
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=CLIPTextModelWithProjection(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer)),
        text_encoder_3=t5(pieces),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=pieces,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def flux(*, guidance_embeds: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    tokenizer, pieces = _tokenizer(), t5_tokenizer()
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
        vae=autoencoder(latent_channels=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=t5(pieces),
        tokenizer=tokenizer,
        tokenizer_2=pieces,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def scale_vae(source: Path, target: Path, name: str, factor: float) -> None:
    """Writes a copy of a pipeline whose autoencoder has one tensor multiplied, so that it overflows or breaks."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    path = target / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights[name] *= factor
    save_file(weights, path, metadata={"format": "pt"})


def overflowing_vae(source: Path, target: Path) -> None:
    """Writes a copy of a pipeline whose autoencoder overflows in float16.

    Its first factor is large, and the group norms after it cancel that factor.
    """
    scale_vae(source, target, "decoder.conv_in.weight", 3e5)
