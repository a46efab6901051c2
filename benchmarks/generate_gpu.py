"""Times generation with the SD v1.4 architecture (random weights, real sizes) on a GPU and a plain diffusers loop.

python -m benchmarks.generate_gpu             # 512x384, 50 steps, 16 bits
python -m benchmarks.generate_gpu --rehearse  # the same code with tiny weights; needs no GPU
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generate import all_samples, in_batches, settings
from benchmarks.pairs import ratios, spread, time_in_turns
from builders.diffusion.loading import load_pipeline
from builders.diffusion.sampling import Sampler
from builders.engines.base import Generate, pin_model
from builders.engines.diffusion import PACKAGES
from builders.generation.generate_shard import generate_shard_tar
from builders.imagenet_100_sd import ImageNet100SD
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.storage.base import open_storage
from tests.acceptance.record import record
from tests.tiny_pipeline import write_tiny_pipeline

REHEARSAL = "--rehearse" in sys.argv
NUM_ROUNDS = 3
LOOP_BATCH_SIZES = (1, 2) if REHEARSAL else (1, 4, 8, 16, 32)
NUM_IMAGES = 4 if REHEARSAL else 96
MATRIX = 256 if REHEARSAL else 8192


def write_sd14(out: Path) -> None:
    """Writes the architecture of Stable Diffusion v1.4 with random weights; the words of the prompts do not matter."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from builders.embedded.train import train_tokenizer

    tokenizer = train_tokenizer([entry.name for entry in ImageNet100SD.recipe("c_cfg2").classes])
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=77, projection_dim=768, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
        ),
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(torch.float16).save_pretrained(out)


def ours(plan: Plan, execution: Execution, generate: Generate) -> None:
    """Makes every shard of the clone in this process with a loaded model: JPEG, hashes, json, metadata."""
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(plan.num_shards):
            for _ in generate_shard_tar(plan, shard, generate, execution, open_storage(folder)):
                pass


def loop(plan: Plan, pipeline: Any, size: int) -> None:
    """Runs the plain diffusers loop: text prompts, PIL images, saved into class folders."""
    with tempfile.TemporaryDirectory() as folder:
        for batch in in_batches(all_samples(plan), size):
            for sample, image in zip(batch, pipeline(**settings(plan.recipe, batch)).images, strict=True):
                path = Path(folder) / sample.wnid / f"{sample.index}.jpg"
                path.parent.mkdir(exist_ok=True)
                image.save(path, quality=plan.recipe.image_quality)


def bare(plan: Plan, pipeline: Any, size: int) -> None:
    for batch in in_batches(all_samples(plan), size):
        pipeline(**settings(plan.recipe, batch), output_type="np")


def synchronized(arm: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        arm()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


@contextmanager
def timed_modules(pipeline: Any) -> Iterator[list[float]]:
    """Collects the seconds of each call of UNet and VAE, synchronized with the device before and after."""
    spent: list[float] = []
    starts: list[float] = []

    def wait() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            starts.append(wait())
            result = call(*args, **kwargs)
            spent.append(wait() - starts.pop())
            return result

        return timed

    unet, decode = pipeline.unet.forward, pipeline.vae.decode
    pipeline.unet.forward, pipeline.vae.decode = wrap(unet), wrap(decode)
    try:
        yield spent
    finally:
        pipeline.unet.forward, pipeline.vae.decode = unet, decode


def share_outside(plan: Plan, execution: Execution, generate: Sampler) -> float:
    """Returns the fraction of our time that is spent outside UNet and VAE."""
    with timed_modules(generate.pipeline) as spent:
        start = time.perf_counter()
        ours(plan, execution, generate)
        total = time.perf_counter() - start
    return 1 - sum(spent) / total


def num_flops(recipe: Recipe) -> float:
    """Returns the floating-point operations of one image, as torch counts them."""
    one = Plan(replace(recipe, num_inference_steps=1), 1)
    two = Plan(replace(one.recipe, num_inference_steps=2), 1)
    counts = []
    for plan in (one, two):
        with FlopCounterMode(display=False) as counter:
            load_pipeline(plan.recipe, Execution())(**settings(plan.recipe, all_samples(plan)[:1]), output_type="np")
        counts.append(counter.get_total_flops())
    return float(counts[0] + (recipe.num_inference_steps - 1) * (counts[1] - counts[0]))


def matmul_rate(dtype: torch.dtype) -> float:
    """Measures floating-point operations per second of a large square matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 10 * 2 * MATRIX**3 / (time.perf_counter() - start))
    return best


def report(recipe: Recipe, seconds: dict[str, list[float]], outside: float, flops: float, rate: float) -> list[str]:
    """Returns the lines of the result page: ratios within a round, and images per second of each arm."""
    num_images = len(recipe.classes)
    best = min((name for name in seconds if name.startswith("loop")), key=lambda name: sum(seconds[name]))
    rows = [
        (
            "ours / bare pipeline on the same batches, time",
            spread(ratios(seconds["ours"], seconds["bare"])),
            "at most 1.05",
        ),
        (f"best plain loop ({best}) / ours, time", spread(ratios(seconds[best], seconds["ours"])), "at least 1.3"),
        (
            f"best plain loop ({best}) / ours compiled, time",
            spread(ratios(seconds[best], seconds["ours, compiled"])),
            "at least 1.3",
        ),
        ("fraction of our time outside UNet and VAE", f"{outside:.1%}", ""),
    ]
    for name in ("ours", "ours, compiled"):
        shares = [flops * num_images / s / rate for s in seconds[name]]
        rows.append(
            (f"{name}: fraction of the measured matrix-multiply rate ({rate / 1e12:.0f} TFLOP/s)", spread(shares), "")
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return [
        f"{device}. SD v1.4 architecture, random weights, {recipe.width}x{recipe.height}, {recipe.num_inference_steps} steps,",
        f"{recipe.dtype}, guidance {recipe.guidance_scale:g}, batches of {LOOP_BATCH_SIZES[-1]}; {num_images} images per arm, "
        f"{NUM_ROUNDS} rounds.",
        "",
        "| ratio or fraction | measured: median (range) | required |",
        "|---|---|---|",
        *[f"| {title} | {value} | {requested} |" for title, value, requested in rows],
        "",
        "| arm | images/s |",
        "|---|---|",
        *[f"| {name} | {spread([num_images / s for s in times])} |" for name, times in seconds.items()],
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "sd14"
        write_tiny_pipeline(model) if REHEARSAL else write_sd14(model)
        changes: dict[str, Any] = {"width": 512, "height": 384, "num_inference_steps": 50}
        if REHEARSAL:
            changes = {"width": 64, "height": 48, "num_inference_steps": 2}
        classes = ImageNet100SD.recipe("c_cfg2").classes[:NUM_IMAGES]
        recipe = ImageNet100SD.recipe("c_cfg2", model=str(model), safety="off", **changes)
        recipe = pin_model(replace(recipe, classes=classes))
        plan = Plan(recipe, 1)
        execution = Execution(batch_size=LOOP_BATCH_SIZES[-1], channels_last=True)
        # The cache keeps one pipeline, so this variable keeps the other one loaded.
        plain = load_pipeline(recipe, Execution())
        loops = {f"loop, batch {size}": partial(loop, plan, plain, size) for size in LOOP_BATCH_SIZES}
        sampler = Sampler(recipe, execution, PACKAGES)
        compiled = replace(execution, compile=True)
        arms = {
            "ours": partial(ours, plan, execution, sampler),
            "ours, compiled": partial(ours, plan, compiled, Sampler(recipe, compiled, PACKAGES)),
            "bare": partial(bare, plan, sampler.pipeline, execution.batch_size),
            **loops,
        }
        seconds = time_in_turns({name: synchronized(arm) for name, arm in arms.items()}, NUM_ROUNDS)
        outside, flops, rate = share_outside(plan, execution, sampler), num_flops(recipe), matmul_rate(torch.float16)
    lines = report(recipe, seconds, outside, flops, rate)
    if REHEARSAL:
        print("\n".join(lines))
    else:
        record("generate-gpu", "Generating images with the SD v1.4 architecture on a GPU", lines)


if __name__ == "__main__":
    main()
