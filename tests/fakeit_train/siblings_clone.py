"""A small clone of digits with several images of a prompt, by the embedded model."""

import csv
from dataclasses import replace
from pathlib import Path

from builders.digits_sd import DigitsSD
from builders.engines.base import pin_model
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.prompts.canonical_rows import with_prompts
from builders.recipes.execution import Execution

IMAGES_PER_PROMPT, ROUNDS_PER_SHARD, NUM_ROUNDS, NUM_CLASSES = 4, 7, 24, 4
SCENES = ("sky", "lawn", "ocean", "volcano", "corridor", "crosswalk")


def make_siblings_clone(folder: Path) -> Path:
    """Makes the clone in `folder`, and returns its root."""
    recipe = DigitsSD.recipe("c_cfg2")
    classes = recipe.classes[:NUM_CLASSES]
    with (folder / "captions.csv").open("w", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "text"])
        writer.writerows([entry.wnid, f"{entry.name} inside {scene}"] for entry in classes for scene in SCENES)
    recipe = with_prompts(replace(pin_model(recipe), classes=classes), str(folder / "captions.csv"))
    recipe = replace(
        recipe,
        images_per_prompt=IMAGES_PER_PROMPT,
        num_inference_steps=1,
        shard_size=ROUNDS_PER_SHARD * NUM_CLASSES,
    )
    root = folder / "siblings"
    make_clone(Plan(recipe, NUM_ROUNDS), str(root), execution=Execution(batch_size=28))
    return root
