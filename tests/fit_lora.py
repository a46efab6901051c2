"""Fits small adapters (LoRA) of the embedded model: one that slants digits, in seconds.

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
    pipeline = StableDiffusionPipeline.from_pretrained(embedded_dir(), dtype=torch.float32)
    unet, noising = pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config)
    for module in (pipeline.vae, pipeline.text_encoder, unet):
        module.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=LAYERS, init_lora_weights="gaussian"))
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=4e-3, weight_decay=0.0)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
        tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = pipeline.text_encoder(tokens).last_hidden_state
    for _ in range(num_steps):
        rows = torch.randint(len(latents), (BATCH,))
        noise, times = torch.randn(BATCH, *latents.shape[1:]), torch.randint(1000, (BATCH,))
        noisy = noising.add_noise(latents[rows], noise, times)
        loss = F.mse_loss(unet(noisy, times, states[rows]).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pipeline.save_lora_weights(file.parent, get_peft_model_state_dict(unet), weight_name=file.name)
    save_file(load_file(file), file, metadata=metadata)
    return file
