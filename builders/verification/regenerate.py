"""Generates one image of a clone again from its own metadata, and compares it with the one in the clone.

The image gets its recorded slot in a batch of the recorded size, and the execution of its shard. Copies of its sample
fill the batch, because neighbors do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from builders.engines.base import engine, pin_model
from builders.errors import UserError
from builders.format.open_clone import Clone
from builders.generation.generate_samples import GeneratedSample
from builders.generation.generate_shard import encode_sample
from builders.images.read import decode_sample
from builders.recipes.adapters import parse_adapter
from builders.recipes.execution import Execution, execution_from_dict
from builders.recipes.recipe import Recipe, override_recipe, recipe_from_dict
from builders.recipes.sample import Sample

SETTINGS = (
    "negative_prompt", "guidance_scale", "num_inference_steps", "width", "height", "model", "revision", "scheduler",
    "dtype",
)  # fmt: skip
"""Fields of a sample's json that are settings of the recipe as well."""


@dataclass(frozen=True, kw_only=True)
class Redone:
    image: bytes
    """Content of the new image's file."""
    is_identical: bool
    """Whether the new file has the same bytes as the one in the clone."""
    num_pixels: int
    """Number of pixels that differ after decoding."""
    max_difference: int
    """Largest difference of a color value, 0 to 255."""

    def __str__(self) -> str:
        if self.is_identical:
            return "identical"
        return f"differs in {self.num_pixels:,} pixels by at most {self.max_difference}"


def regenerate(clone: Clone, key: str, model: str | None = None, adapters: Sequence[str] = ()) -> Redone:
    """Generates the image with a key again.

    Args:
        key: Key of the image.
        model: Directory of its model on this machine, if it did not come from the Hub.
        adapters: Files of its adapters on this machine with their weights, if they did not come from the Hub.

    Raises:
        UserError: there is no such key, the images are real, or the model is another one or cannot be loaded.
    """
    recipe, manifest = recipe_from_dict(clone.manifest.recipe), clone.manifest
    if not manifest.is_synthetic:
        raise UserError(f"'{clone.root}' holds real images; only images of synthetic clones can be generated again")
    number = clone.find(key)
    shard, row = clone.locate(number)
    fields = clone.metadata(shard).slice(row, 1).to_pylist()[0]
    recipe = override_recipe(recipe, {name: fields[name] for name in SETTINGS})
    execution = execution_from_dict(manifest.executions[manifest.shards[shard].execution])
    execution = replace(execution, batch_size=fields["batch_size"])
    recorded = [parse_adapter(text) for text in recipe.adapters]
    recipe = replace(
        recipe, safety="off", model_dir=model or "", checks=(), adapters=tuple(adapters) or recipe.adapters
    )
    recipe = pin_model(recipe)
    given = [parse_adapter(text) for text in recipe.adapters]
    # A file may have another name here.
    if [(one.revision, one.weight) for one in given] != [(one.revision, one.weight) for one in recorded]:
        there, here = (", ".join(map(str, some)) for some in (recorded, given))
        raise UserError(f"the image was made with {there}, not {here}; give those files")
    sample = Sample(
        key=key,
        label=fields["label"],
        wnid=fields["wnid"],
        class_name=fields["class_name"],
        index=fields["index"],
        attempt=fields["attempt"],
        seed=fields["seed"],
        background=fields["background"],
        prompt=fields["prompt"],
        prompt_index=fields["prompt_index"],
    )
    return _compare(recipe, execution, sample, fields["batch_slot"], clone[number].image)


def _compare(recipe: Recipe, execution: Execution, sample: Sample, slot: int, old: bytes) -> Redone:
    generated = engine(recipe.engine).load(recipe, execution)([sample] * execution.batch_size)[slot]
    made = GeneratedSample(
        position=0, sample=sample, slot=slot, generated=generated, verdict="", score=-1.0, is_rejected=False
    )
    new, _ = encode_sample(recipe, execution, made)
    before, after = (decode_sample(sample.key, content).astype(int) for content in (old, new))
    if before.shape != after.shape:
        raise UserError(f"'{sample.key}' is {before.shape[1]}x{before.shape[0]} in the clone, but not in its json")
    differences = np.abs(before - after).max(axis=2)
    return Redone(
        image=new,
        is_identical=new == old,
        num_pixels=int((differences > 0).sum()),
        max_difference=int(differences.max()),
    )
