"""Trains the embedded Stable Diffusion on 1,200 handwritten digits: first the VAE, then text encoder and UNet together.

One fixed seed determines everything. The model sees only the training split of the digits (builders/classes/digits.py),
with small rotations, scalings and shifts: on black for prompts without {b}, on a drawn backdrop for the one with it.

    python -m builders.embedded.train [--out DIR]      # about 50 minutes on two cores; writes a pipeline directory
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from tokenizers import pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from builders.classes.class_list import read_class_table
from builders.classes.digits import compose, enlarge, load_digits_split
from builders.classes.scenes import scene_phrase
from builders.embedded.digits import BACKDROPS, DrawBackground
from builders.recipes.prompts import TEMPLATES, render_prompt, template_fields

HIDDEN = 96
"""Width of the text encoder, and so of the UNet's cross-attention."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    out: Path = Path(__file__).parent / "pipeline"
    """Pipeline directory to write."""
    seed: int = 0
    """Seed of every random draw."""
    variants: int = 20
    """Augmented images of each training digit on black, and as many on backdrops."""
    vae_steps: int = 1200
    """Optimizer steps of the autoencoder, 64 images each."""
    steps: int = 6000
    """Optimizer steps of text encoder and UNet, `captions_per_step` x `images_per_caption` latents each."""
    captions_per_step: int = 32
    images_per_caption: int = 4
    caption_dropout: float = 0.1
    """Fraction of captions replaced by the empty one, for classifier-free guidance."""
    learning_rate: float = 1e-3


def draw_variant(scan: NDArray[np.float32], draw: DrawBackground | None, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns a scan (8, 8), slightly rotated, scaled and shifted, as an image (3, 32, 32)."""
    ink = enlarge(
        scan,
        rotation=rng.uniform(-8, 8),
        scale=rng.uniform(0.94, 1.06),
        shift=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
    )
    return compose(ink, draw(rng) if draw else None).transpose(2, 0, 1)


def make_images(variants: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns training images (class, scene, n, 3, 32, 32): as many black scenes as backdrops, black ones first.

    Every scan appears `variants` times on black and `variants` times on backdrops.
    """
    ink, labels, _ = load_digits_split("train")
    num_per_scene = 120 * variants // len(BACKDROPS)
    drawers = [None] * len(BACKDROPS) + list(BACKDROPS.values())
    return np.stack(
        [
            np.stack(
                [
                    np.stack([draw_variant(scans[(s + i) % 120], draw, rng) for i in range(num_per_scene)])
                    for s, draw in enumerate(drawers)
                ]
            )
            for scans in (ink[labels == label] for label in range(10))
        ]
    )


def caption_table() -> list[tuple[str, int, int]]:
    """Returns every caption with its class and its scene index in `make_images` (-1: any black scene)."""
    table = []
    scenes = list(BACKDROPS)
    for template in TEMPLATES.values():
        for label, entry in enumerate(read_class_table("digits")):
            if "b" in template_fields(template):
                table += [
                    (render_prompt(template, entry, scene_phrase(scene)), label, len(scenes) + i)
                    for i, scene in enumerate(scenes)
                ]
            else:
                table.append((render_prompt(template, entry), label, -1))
    return table


def train_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """Trains a byte-level BPE that has a token for each word of the captions, and can still encode any text."""
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    blank = CLIPTokenizer()
    backend = blank.backend_tokenizer
    backend.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [letter + "</w>" for letter in alphabet]
    words += [left + right for left, right in merges if left + right not in set(words)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96),
        layers_per_block=1,
        cross_attention_dim=HIDDEN,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        projection_dim=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def cosine_rate(step: int, num_steps: int, peak: float, warm_up: int = 200) -> float:
    """Returns the learning rate at a step: linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, num_steps - warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def optimize(optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor, rate: float) -> None:
    for parameters in optimizer.param_groups:
        parameters["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def train_vae(images: Tensor, config: TrainingConfig, device: str) -> AutoencoderKL:
    """Trains the autoencoder on images in [-1, 1]: mean absolute plus squared error, and a small KL term."""
    vae = build_vae().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0.0)
    order = torch.Generator().manual_seed(config.seed + 1)
    for step in range(config.vae_steps):
        batch = images[torch.randint(len(images), (64,), generator=order)].to(device).float() / 127.5 - 1
        posterior = vae.encode(batch).latent_dist
        generated = vae.decode(posterior.sample()).sample
        error = F.l1_loss(generated, batch) + F.mse_loss(generated, batch)
        loss = error + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()
        optimize(optimizer, vae, loss, cosine_rate(step, config.vae_steps, 1.5e-3))
        report("vae", step, config.vae_steps, loss)
    return vae.eval().requires_grad_(False)


@torch.inference_mode()
def encode_images(vae: AutoencoderKL, images: Tensor, device: str) -> Tensor:
    """Returns latents (n, 4, 8, 8), scaled to unit variance, and sets the VAE's scaling factor."""
    latents = torch.cat([vae.encode(b.to(device).float() / 127.5 - 1).latent_dist.mean for b in images.split(500)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return latents * vae.config.scaling_factor


def train_denoiser(
    latents: Tensor, config: TrainingConfig, device: str
) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """Trains text encoder and UNet to predict noise on Stable Diffusion's schedule; returns their moving averages.

    Args:
        latents: (class, scene, variant, 4, 8, 8), on the device.
        config: Numbers of steps and captions, and rates.
        device: "cuda" or "cpu".
    """
    table = caption_table()
    tokenizer = train_tokenizer([caption for caption, _, _ in table])
    tokens = tokenizer(
        [caption for caption, _, _ in table] + [""], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    by_template = torch.arange(len(table)).split([10, 10, 10, 10 * len(BACKDROPS), 10, 10])
    model = nn.ModuleDict({"text": build_text_encoder(tokenizer), "unet": build_unet()}).to(device).train()
    model["unet"].to(memory_format=torch.channels_last)
    average = EMAModel(model.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    rng = np.random.default_rng(config.seed + 2)
    noise_source = torch.Generator().manual_seed(config.seed + 3)
    num_black = latents.shape[1] - len(BACKDROPS)
    for step in range(config.steps):
        templates = rng.integers(len(by_template), size=config.captions_per_step)
        chosen = np.array([rng.choice(by_template[t].numpy()) for t in templates])
        labels = np.array([table[i][1] for i in chosen])
        scenes = np.array([table[i][2] for i in chosen])
        scenes = np.where(scenes < 0, rng.integers(num_black, size=len(scenes)), scenes)
        variants = rng.integers(latents.shape[2], size=(len(chosen), config.images_per_caption))
        clean = latents[labels[:, None], scenes[:, None], variants].flatten(0, 1)
        chosen = np.where(rng.random(len(chosen)) < config.caption_dropout, len(table), chosen)
        states = model["text"](tokens[chosen].to(device)).last_hidden_state
        noise = torch.randn(clean.shape, generator=noise_source).to(device)
        times = torch.randint(1000, (len(clean),), generator=noise_source).to(device)
        noisy = noising.add_noise(clean, noise, times)
        states = states.repeat_interleave(config.images_per_caption, dim=0)
        loss = F.mse_loss(model["unet"](noisy, times, states).sample, noise)
        optimize(optimizer, model, loss, cosine_rate(step, config.steps, config.learning_rate))
        average.step(model.parameters())
        report("denoiser", step, config.steps, loss)
    average.copy_to(model.parameters())
    return tokenizer, model["text"].eval(), model["unet"].eval()


def report(what: str, step: int, num_steps: int, loss: Tensor) -> None:
    if step % 200 == 0 or step + 1 == num_steps:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what} {step + 1}/{num_steps} loss {loss.item():.4f}\n")


def train(config: TrainingConfig) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(config.seed)
    images = make_images(config.variants, np.random.default_rng(config.seed))
    flat = torch.from_numpy(images).flatten(0, 2)
    vae = train_vae(flat, config, device)
    latents = encode_images(vae, flat, device).reshape(*images.shape[:3], 4, 8, 8)
    tokenizer, text_encoder, unet = train_denoiser(latents, config, device)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(config.out, safe_serialization=True)


if __name__ == "__main__":
    train(tyro.cli(TrainingConfig, description=__doc__))
