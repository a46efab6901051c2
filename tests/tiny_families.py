"""Tiny pipelines with random weights: one for every row of the table of families.

The tokenizers read single bytes, so that any prompt has tokens. Text encoders and transformers have one or two layers.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tests.tiny_pipeline import (
    autoencoder,
    flux,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    t5,
    t5_tokenizer,
)

QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_CHAT = (
    "<s>{% for m in messages %}[{{ m['role'] }}]"
    "{% for part in m['content'] %}{{ part['text'] if part['type'] == 'text' else '[IMG]' }}{% endfor %}{% endfor %}</s>"
)


def _bytes_vocabulary(specials: list[str]) -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {token: number for number, token in enumerate([*specials, *bytes_to_unicode().values()])}


def _qwen_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        vocab=_bytes_vocabulary(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        merges=[],
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer


def _language_model_sizes(tokenizer: Any, **options: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        **options,
    }


def _flow_scheduler(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def pixart_sigma() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    tokenizer = t5_tokenizer()
    return PixArtSigmaPipeline(
        transformer=PixArtTransformer2DModel(
            sample_size=8,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=16,
            out_channels=8,
            norm_type="ada_norm_single",
        ),
        vae=autoencoder(),
        text_encoder=t5(tokenizer),
        tokenizer=tokenizer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def sana() -> Any:
    from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    # Whole words of the instruction that Sana puts before a prompt; in bytes it would be 2,000 tokens long.
    merges = _merges(" ".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default))
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += dict.fromkeys(piece for pair in merges for piece in (*pair, "".join(pair)))
    tokenizer = GemmaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)
    return SanaPipeline(
        transformer=SanaTransformer2DModel(
            sample_size=16,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
        ),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
        ),
        text_encoder=Gemma2Model(Gemma2Config(**_language_model_sizes(tokenizer))),
        tokenizer=tokenizer,
        scheduler=_flow_scheduler(shift=3.0),
    )


def _merges(text: str) -> list[tuple[str, str]]:
    """Returns the merges of a byte-pair tokenizer that join the letters of each word of a text, from the left."""
    words = dict.fromkeys(f"▁{word}" for word in text.split())
    return list(dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word))))


def qwen_image() -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = _qwen_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
    config = Qwen2_5_VLConfig(
        text_config=_language_model_sizes(tokenizer, rope_parameters=rope),
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
    )
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        scheduler=_flow_scheduler(use_dynamic_shifting=True),
    )


def z_image(*, shift: float = 3.0) -> Any:
    import torch
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = _qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    with torch.no_grad():
        # diffusers leaves these two uninitialized.
        transformer.x_pad_token.fill_(1.0)
        transformer.cap_pad_token.fill_(1.0)
    return ZImagePipeline(
        transformer=transformer,
        vae=autoencoder(shift_factor=0.1),
        text_encoder=Qwen3Model(Qwen3Config(**_language_model_sizes(tokenizer))),
        tokenizer=tokenizer,
        scheduler=_flow_scheduler(shift=shift),
    )


def _flux_2_modules() -> dict[str, Any]:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    return {
        "transformer": Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        "vae": AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            latent_channels=4,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "scheduler": _flow_scheduler(use_dynamic_shifting=True),
    }


def flux_2() -> Any:
    """The pipeline reads the hidden states of layers 10, 20 and 30, so its text encoder has thirty tiny layers."""
    from diffusers import Flux2Pipeline
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
        PreTrainedTokenizerFast,
    )

    tokenizer = _bytes_tokenizer(["<s>", "</s>", "<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"], PreTrainedTokenizerFast)
    processor = PixtralProcessor(
        PixtralImageProcessor(), tokenizer, patch_size=8, chat_template=MISTRAL_CHAT, image_token="[IMG]"
    )
    config = Mistral3Config(
        text_config={
            "model_type": "mistral", **_language_model_sizes(tokenizer, num_hidden_layers=30), "sliding_window": None,
        },
        vision_config={
            "model_type": "pixtral", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "image_size": 16, "patch_size": 8,
        },
    )  # fmt: skip
    return Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config), tokenizer=processor, **_flux_2_modules()
    )


def _bytes_tokenizer(specials: list[str], kind: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=_bytes_vocabulary(specials), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return kind(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=specials[3:],
    )


def flux_2_klein(*, is_distilled: bool = True) -> Any:
    """The pipeline reads the hidden states of layers 9, 18 and 27."""
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _qwen_tokenizer()
    return Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**_language_model_sizes(tokenizer, num_hidden_layers=27))),
        tokenizer=tokenizer,
        is_distilled=is_distilled,
        **_flux_2_modules(),
    )


def _v_prediction() -> Any:
    from diffusers import DDIMScheduler

    return stable_diffusion(
        DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction", steps_offset=1, clip_sample=False)
    )


def _sd_turbo() -> Any:
    from diffusers import EulerDiscreteScheduler

    return stable_diffusion(
        EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing", steps_offset=1)
    )


def _sdxl_turbo() -> Any:
    from diffusers import EulerAncestralDiscreteScheduler

    return stable_diffusion_xl(
        sample_size=64,
        scheduler=EulerAncestralDiscreteScheduler(
            beta_schedule="scaled_linear", timestep_spacing="trailing", steps_offset=1
        ),
    )


TINY: dict[str, Callable[[], Any]] = {
    "Stable Diffusion 2.x with v-prediction": _v_prediction,
    "SD Turbo": _sd_turbo,
    "Stable Diffusion 1.x": stable_diffusion,
    "SDXL Turbo": _sdxl_turbo,
    "Stable Diffusion XL": stable_diffusion_xl,
    "Stable Diffusion 3.x": stable_diffusion_3,
    "Stable Diffusion 3.5 Turbo": stable_diffusion_3,
    "Flux dev": flux,
    "Flux schnell": partial(flux, guidance_embeds=False),
    "Flux 2": flux_2,
    "Flux 2 klein": flux_2_klein,
    "Flux 2 klein base": partial(flux_2_klein, is_distilled=False),
    "PixArt-Sigma": pixart_sigma,
    "Sana": sana,
    "Qwen-Image": qwen_image,
    "Z-Image Turbo": z_image,
    "Z-Image": partial(z_image, shift=6.0),
}
"""Writers of pipelines by name of the family."""


QUICK = ("Stable Diffusion 1.x", "Flux dev", "Flux schnell", "PixArt-Sigma", "Qwen-Image")
"""Families that `make test` tries: one for each way of guidance, negative prompts and padding. `make test-all` tries all."""


def as_parameters(names: Iterable[str]) -> list[Any]:
    """Returns names of families as parameters of a test; all but `QUICK` are marked long."""
    import pytest

    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in names]


def write_tiny_family(name: str, out: Path) -> Path:
    """Writes a pipeline of a family, which generates images of `size(name)` pixels; returns its directory."""
    import torch

    torch.manual_seed(0)
    TINY[name]().save_pretrained(out, safe_serialization=True)
    return out


def size(name: str) -> int:
    """Returns the width and height in pixels that a tiny pipeline generates. Sana's must be multiples of 32."""
    return 32 if name == "Sana" else 16
