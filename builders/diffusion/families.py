"""The table of families of text-to-image models: how each is called, what it ignores, and its defaults.

To add a family, add a row to `FAMILIES` and a tiny pipeline to the tests; docs/families.md leads through it.
"""

from dataclasses import replace

from builders.diffusion.family import ALWAYS, CLIP, NEVER, T5, Family

IMAGE_EMBEDDINGS = (
    "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds",
)  # fmt: skip
MASKED_EMBEDDINGS = (
    "prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask",
)  # fmt: skip
EXACT_SIZE = {"use_resolution_binning": False, "clean_caption": False}
"""Generates the size that was requested, and reads prompts the same whether packages for cleaning are installed or not."""

_SD = Family(
    name="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    hub_ids=(
        "CompVis/stable-diffusion-v1-4", "runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-2-base", "stabilityai/stable-diffusion-2-1-base",
    ),
    interval_tensors=("prompt_embeds",),
    embeddings=("prompt_embeds", "negative_prompt_embeds"),
    size=512,
)  # fmt: skip
_SDXL = Family(
    name="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    hub_ids=("stabilityai/stable-diffusion-xl-base-1.0",),
    interval_tensors=("prompt_embeds", "add_text_embeds", "add_time_ids"),
    embeddings=IMAGE_EMBEDDINGS,
    tokens={"tokenizer": CLIP, "tokenizer_2": CLIP},
    guidance_scale=5.0,
)
_SD3 = Family(
    name="Stable Diffusion 3.x",
    pipeline="StableDiffusion3Pipeline",
    hub_ids=(
        "stabilityai/stable-diffusion-3-medium-diffusers", "stabilityai/stable-diffusion-3.5-medium",
        "stabilityai/stable-diffusion-3.5-large",
    ),
    interval_tensors=("prompt_embeds", "pooled_prompt_embeds"),
    embeddings=IMAGE_EMBEDDINGS,
    max_sequence_length=256,
    tokens={"tokenizer": CLIP, "tokenizer_2": CLIP, "tokenizer_3": (256, T5)},
    num_inference_steps=28,
    guidance_scale=7.0,
)  # fmt: skip
_FLUX = Family(
    name="Flux dev",
    accelerations=("attention_backend", "first_block_cache"),
    pipeline="FluxPipeline",
    facts={"denoiser.guidance_embeds": True},
    hub_ids=("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-Krea-dev"),
    acts_above=ALWAYS,
    negative_prompt="true_cfg_scale",
    embeddings=("prompt_embeds", "pooled_prompt_embeds"),
    max_sequence_length=512,
    tokens={"tokenizer": CLIP, "tokenizer_2": (512, T5)},
    num_inference_steps=28,
    guidance_scale=3.5,
    dtype="bfloat16",
)
_KLEIN = Family(
    name="Flux 2 klein base",
    accelerations=("attention_backend",),
    pipeline="Flux2KleinPipeline",
    hub_ids=("black-forest-labs/FLUX.2-klein-base-4B", "black-forest-labs/FLUX.2-klein-base-9B"),
    embeddings=("prompt_embeds",),
    max_sequence_length=512,
    tokens={"tokenizer": (512, 12)},
    guidance_scale=4.0,
    dtype="bfloat16",
)
_Z_IMAGE = Family(
    name="Z-Image",
    pipeline="ZImagePipeline",
    hub_ids=("Tongyi-MAI/Z-Image",),
    acts_above=0.0,
    tokens={"tokenizer": (512, 8)},
    max_batch_size=1,
    guidance_scale=4.0,
    dtype="bfloat16",
)

FAMILIES = (
    # A family with facts comes before the one that its class defaults to.
    replace(
        _SD,
        name="Stable Diffusion 2.x with v-prediction",
        facts={"scheduler.prediction_type": "v_prediction"},
        hub_ids=("stabilityai/stable-diffusion-2", "stabilityai/stable-diffusion-2-1"),
        size=768,
    ),
    replace(
        _SD,
        name="SD Turbo",
        facts={"scheduler._class_name": "EulerDiscreteScheduler", "scheduler.timestep_spacing": "trailing"},
        hub_ids=("stabilityai/sd-turbo",),
        num_inference_steps=1,
        guidance_scale=1.0,
    ),
    _SD,
    replace(
        _SDXL,
        name="SDXL Turbo",
        facts={
            "scheduler._class_name": "EulerAncestralDiscreteScheduler",
            "scheduler.timestep_spacing": "trailing",
            "denoiser.sample_size": 64,
        },
        hub_ids=("stabilityai/sdxl-turbo",),
        size=512,
        num_inference_steps=1,
        guidance_scale=1.0,
    ),
    _SDXL,
    _SD3,
    replace(
        _SD3,
        name="Stable Diffusion 3.5 Turbo",
        hub_ids=("stabilityai/stable-diffusion-3.5-large-turbo",),
        num_inference_steps=4,
        guidance_scale=1.0,
    ),
    _FLUX,
    replace(
        _FLUX,
        name="Flux schnell",
        facts={"denoiser.guidance_embeds": False},
        hub_ids=("black-forest-labs/FLUX.1-schnell",),
        acts_above=NEVER,
        max_sequence_length=256,
        tokens={"tokenizer": CLIP, "tokenizer_2": (256, T5)},
        num_inference_steps=4,
        guidance_scale=1.0,
    ),
    Family(
        name="Flux 2",
        accelerations=("attention_backend",),
        pipeline="Flux2Pipeline",
        hub_ids=("black-forest-labs/FLUX.2-dev",),
        acts_above=ALWAYS,
        negative_prompt="no",
        embeddings=("prompt_embeds",),
        max_sequence_length=512,
        tokens={"tokenizer": (512, 40)},
        guidance_scale=4.0,
        dtype="bfloat16",
    ),
    replace(
        _KLEIN,
        name="Flux 2 klein",
        facts={"index.is_distilled": True},
        hub_ids=("black-forest-labs/FLUX.2-klein-4B", "black-forest-labs/FLUX.2-klein-9B"),
        acts_above=NEVER,
        negative_prompt="no",
        num_inference_steps=4,
        guidance_scale=1.0,
    ),
    _KLEIN,
    Family(
        name="PixArt-Sigma",
        pipeline="PixArtSigmaPipeline",
        hub_ids=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
        takes_adapters=False,
        embeddings=MASKED_EMBEDDINGS,
        max_sequence_length=300,
        tokens={"tokenizer": (300, T5)},
        options=EXACT_SIZE,
        num_inference_steps=20,
        guidance_scale=4.5,
    ),
    Family(
        name="Sana",
        pipeline="SanaPipeline",
        hub_ids=("Efficient-Large-Model/Sana_1600M_1024px_diffusers",),
        embeddings=MASKED_EMBEDDINGS,
        max_sequence_length=300,
        tokens={"tokenizer": (300, 2)},
        options=EXACT_SIZE,
        num_inference_steps=20,
        guidance_scale=4.5,
        dtype="bfloat16",
    ),
    Family(
        name="Qwen-Image",
        accelerations=("attention_backend", "first_block_cache"),
        pipeline="QwenImagePipeline",
        hub_ids=("Qwen/Qwen-Image", "Qwen/Qwen-Image-2512"),
        guidance="true_cfg_scale",
        tokens={"tokenizer": (512, 5)},
        max_batch_size=1,
        size=1328,
        guidance_scale=4.0,
        dtype="bfloat16",
    ),
    _Z_IMAGE,
    replace(
        _Z_IMAGE,
        name="Z-Image Turbo",
        facts={"scheduler.shift": 3.0},
        hub_ids=("Tongyi-MAI/Z-Image-Turbo",),
        num_inference_steps=9,
        guidance_scale=0.0,
    ),
)
