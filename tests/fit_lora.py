"""Fits small adapters (LoRA) of the embedded model: one that slants digits, in seconds; one for few steps, in minutes.

The slant of a digit is that of its ink's second moments: the covariance of x and y over the variance of y.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from builders.classes.class_list import read_class_table
from builders.classes.digits import compose, enlarge, load_digits_split
from builders.diffusion.pin import embedded_dir

BATCH = 32
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def slants(ink: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the slant of each image of ink (n, height, width), whose background is 0; positive leans to the left."""
    weights = ink.astype(np.float64) / ink.sum(axis=(1, 2), keepdims=True)
    y, x = np.mgrid[0 : ink.shape[1], 0 : ink.shape[2]]
    dy = y - (weights * y).sum(axis=(1, 2), keepdims=True)
    dx = x - (weights * x).sum(axis=(1, 2), keepdims=True)
    return (weights * dx * dy).sum(axis=(1, 2)) / (weights * dy * dy).sum(axis=(1, 2))


def slanted_digits() -> tuple[NDArray[np.uint8], list[str]]:
    """Returns training digits (n, 32, 32, 3) whose slant is above the 80th percentile of their class, and their prompts."""
    ink, labels, _ = load_digits_split("train")
    found = slants(ink)
    chosen = [
        row
        for label in range(10)
        for row in np.flatnonzero((labels == label) & (found > np.percentile(found[labels == label], 80)))
    ]
    names = [entry.name for entry in read_class_table("digits")]
    return np.stack([compose(enlarge(ink[row])) for row in chosen]), [names[labels[row]] for row in chosen]


def fit_lora(
    file: Path,
    images: NDArray[np.uint8],
    prompts: list[str],
    *,
    num_steps: int = 60,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Fits a LoRA of rank 8 to images (n, 32, 32, 3) with their prompts, saves and returns its file."""
    torch.manual_seed(0)
    pipeline, latents, states = _training_set(images, prompts)
    unet, noising = pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config)
    unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=LAYERS, init_lora_weights="gaussian"))
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=4e-3, weight_decay=0.0)
    for _ in range(num_steps):
        rows = torch.randint(len(latents), (BATCH,))
        noise, times = torch.randn(BATCH, *latents.shape[1:]), torch.randint(1000, (BATCH,))
        noisy = noising.add_noise(latents[rows], noise, times)
        loss = F.mse_loss(unet(noisy, times, states[rows]).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _save(pipeline, file, metadata)


def fit_lcm_lora(file: Path, *, num_steps: int = 600, guidance_scale: float = 2.0) -> Path:
    """Fits a LoRA by which the embedded model needs a few steps: latent consistency distillation (arXiv 2310.04378).

    The student's guess of the clean latents at a timestep approaches its guess after one DDIM step of the guided teacher,
    of 20 timesteps.
    """
    torch.manual_seed(0)
    pipeline, latents, states = _training_set(*_all_digits())
    unet, empty = pipeline.unet, _embed(pipeline, [""])
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    alphas = schedule.alphas_cumprod
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=LAYERS, init_lora_weights="gaussian"))
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=num_steps)

    def guess(noisy: torch.Tensor, times: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The student's clean latents, with the boundary condition of `LCMScheduler`."""
        clean = _clean(noisy, unet(noisy, times, text).sample, alphas[times])
        scaled = (times * 10.0).view(-1, 1, 1, 1)
        skip = 0.5**2 / (scaled**2 + 0.5**2)
        return skip * noisy + scaled / (scaled**2 + 0.5**2) ** 0.5 * clean

    for _ in range(num_steps):
        rows = torch.randint(len(latents), (BATCH,))
        noise, start = torch.randn(BATCH, *latents.shape[1:]), torch.randint(1, 51, (BATCH,)) * 20 - 1
        noisy, text = schedule.add_noise(latents[rows], noise, start), states[rows]
        end = (start - 20).clamp(min=0)
        with torch.no_grad():
            unet.disable_adapters()
            both = unet(noisy.repeat(2, 1, 1, 1), start.repeat(2), torch.cat([empty.expand_as(text), text])).sample
            unet.enable_adapters()
            without, given = both.chunk(2)
            guided = without + guidance_scale * (given - without)
            level = alphas[end].view(-1, 1, 1, 1)
            earlier = level.sqrt() * _clean(noisy, guided, alphas[start]) + (1 - level).sqrt() * guided
            goal = guess(earlier, end, text)
        loss = F.huber_loss(guess(noisy, start, text), goal, delta=0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return _save(pipeline, file, None)


def _clean(noisy: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Returns the clean latents that a prediction of the noise implies."""
    alpha = alpha.view(-1, 1, 1, 1)
    return (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()


def _all_digits() -> tuple[NDArray[np.uint8], list[str]]:
    ink, labels, _ = load_digits_split("train")
    names = [entry.name for entry in read_class_table("digits")]
    return np.stack([compose(enlarge(scan)) for scan in ink]), [names[label] for label in labels]


def _embed(pipeline: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
    tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states: torch.Tensor = pipeline.text_encoder(tokens).last_hidden_state
    return states


def _training_set(
    images: NDArray[np.uint8], prompts: list[str]
) -> tuple[StableDiffusionPipeline, torch.Tensor, torch.Tensor]:
    """Returns the embedded pipeline, and latents and embedded prompts of images (n, 32, 32, 3)."""
    pipeline = StableDiffusionPipeline.from_pretrained(embedded_dir(), dtype=torch.float32)
    for module in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        module.requires_grad_(False)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    return pipeline, latents, _embed(pipeline, prompts)


def _save(pipeline: StableDiffusionPipeline, file: Path, metadata: dict[str, str] | None) -> Path:
    pipeline.save_lora_weights(file.parent, get_peft_model_state_dict(pipeline.unet), weight_name=file.name)
    save_file(load_file(file), file, metadata=metadata)
    return file
