"""Generates some images before GPU-hours are spent: `preview.png` shows them, `preview.json` says what they cost."""

import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from builders.engines.base import engine, session
from builders.generation.generate_samples import GeneratedSample, generate_samples
from builders.generation.generate_shard import encode_sample
from builders.images.read import decode_image
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.sample import Sample

TILE, GAP, FONT_SIZE = 256, 8, 14
"""Pixels of a tile's longer side, of the gap between tiles, and of the captions' font."""
LEAST_SECONDS = 4.0
"""Time for which a preview generates, over and over where its images take less, so that its measure is steady."""


def choose_samples(plan: Plan, num_images: int) -> list[Sample]:
    """Returns samples of classes drawn at random with the recipe's seed, so that every preview shows the same."""
    draw = random.Random(f"{plan.recipe.seed}/preview")
    labels = [label for label, count in enumerate(plan.class_counts()) if count]
    order = [label for _ in range(-(-num_images // len(labels))) for label in draw.sample(labels, len(labels))]
    taken: dict[int, int] = {}
    found = []
    for label in order[:num_images]:
        taken[label] = taken.get(label, -1) + 1
        found.append(plan.sample(label, taken[label]))
    return found


def write_preview(plan: Plan, execution: Execution, num_images: int, folder: Path) -> dict[str, Any]:
    """Generates some images in this process and writes them to `folder`; nothing goes to the clone's output.

    Returns:
        The content of `preview.json`: seconds a batch and an image in the steady state, seconds from the start of the
        process to the first batch, device, execution and settings.

    Raises:
        UserError: the model cannot be loaded, or a batch does not fit.
    """
    samples = choose_samples(plan, num_images)
    generate = engine(plan.recipe.engine).load(plan.recipe, execution)
    with session(generate), ThreadPoolExecutor(1) as host, ThreadPoolExecutor(1) as encoder:
        # A warm-up, which belongs to the start: the first batch of a process takes longer than the others.
        list(generate_samples(plan, samples[: execution.batch_size], generate, execution.batch_size, host))
        seconds_to_start = _seconds_since_start()
        begun, num_batches = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begun) < LEAST_SECONDS:
            kept: list[GeneratedSample] = []
            encoding = []
            for batch in generate_samples(plan, samples, generate, execution.batch_size, host):
                kept += batch.kept
                encoding += [encoder.submit(encode_sample, plan.recipe, execution, made) for made in batch.kept]
            for future in encoding:
                future.result()
            # Batches of images that are made again, as checks ask for, count to the first ones.
            num_batches += math.ceil(len(samples) / execution.batch_size)
    seconds_per_batch = seconds / num_batches
    kept.sort(key=lambda one: one.position)
    made = [one.generated for one in kept]
    summary = {
        "num_images": len(samples),
        "seconds_per_batch": round(seconds_per_batch, 4),
        "seconds_per_image": round(seconds_per_batch / execution.batch_size, 4),
        "seconds_to_start": round(max(0.0, seconds_to_start - seconds_per_batch), 2),
        "num_broken": sum(image.is_broken for image in made),
        "num_flagged": sum(image.nsfw == 1 for image in made),
        "environment": generate.environment,
        "execution": asdict(execution),
        "recipe": {name: value for name, value in plan.recipe.to_dict().items() if name not in ("classes", "scenes")},
        "images": [
            {
                "key": one.sample.key,
                "seed": one.sample.seed,
                "prompt": one.sample.prompt,
                "attempt": one.sample.attempt,
                "verdict": one.verdict,
                "check_score": one.score,
            }
            for one in kept
        ],
    }
    drawn = [Image.fromarray(decode_image(i.image) if isinstance(i.image, bytes) else i.image) for i in made]
    folder.mkdir(parents=True, exist_ok=True)
    _sheet(drawn, samples).save(folder / "preview.png")
    (folder / "preview.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return summary


def _seconds_since_start() -> float:
    import psutil

    return time.time() - float(psutil.Process().create_time())


def _sheet(images: list[Image.Image], samples: list[Sample]) -> Image.Image:
    """Returns a square sheet of tiles, each with its class and key below."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    scale = TILE / max(max(image.size) for image in images)
    width, height = (max(round(image.size[axis] * scale) for image in images) for axis in (0, 1))
    cell = (width + GAP, height + 2 * FONT_SIZE + 2 * GAP)
    sheet = Image.new("RGB", (GAP + columns * cell[0], GAP + rows * cell[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_SIZE)
    for number, (image, sample) in enumerate(zip(images, samples, strict=True)):
        x, y = GAP + number % columns * cell[0], GAP + number // columns * cell[1]
        size = (round(image.size[0] * scale), round(image.size[1] * scale))
        sheet.paste(image.resize(size, Image.Resampling.BICUBIC), (x, y))
        for line, text in enumerate((sample.class_name, sample.key)):
            while text and font.getlength(text) > width:
                text = text[:-1]
            draw.text((x, y + height + 2 + line * FONT_SIZE), text, fill="black", font=font)
    return sheet
