"""Pins a recipe's model: turns a name, a Hub id or a directory into a model with a revision that fixes its bytes."""

import json
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from builders.errors import UserError
from builders.networks.revision import directory_digest, files_digest, hub_commit
from builders.recipes.recipe import Recipe
from builders.storage.hub_error import hub_error

SCHEDULER = "scheduler/scheduler_config.json"
EMBEDDED = "fakeit/digits-sd"
"""Name of the small Stable Diffusion that ships with the package."""


def embedded_dir() -> Path:
    """Returns the pipeline directory of the embedded model."""
    return Path(str(files("builders.embedded"))) / "pipeline"


def pin_embedded(recipe: Recipe) -> Recipe:
    """Pins the embedded model, and leaves any other recipe as it is, so that the Hub is never contacted."""
    return pin_pipeline(recipe) if is_embedded(recipe) else recipe


def is_embedded(recipe: Recipe) -> bool:
    return recipe.model == EMBEDDED and not recipe.model_dir


def model_path(recipe: Recipe) -> str:
    """Returns the directory or the single-file checkpoint of a recipe's model on this machine; "" for one of the Hub."""
    if is_embedded(recipe):
        return str(embedded_dir())
    return recipe.model_dir or (recipe.model if is_local(recipe.model) else "")


def model_directory(recipe: Recipe) -> str:
    """Returns the directory with the configuration of a recipe's model on this machine; "" for a model of the Hub."""
    path = model_path(recipe)
    return str(Path(path).parent) if path and is_checkpoint(path) else path


def is_local(model: str) -> bool:
    """Whether a model is a directory or a single-file checkpoint on this machine."""
    return Path(model).is_dir() or is_checkpoint(model)


def is_checkpoint(model: str) -> bool:
    """Whether a model is a single file of weights, whose pipeline's configuration lies beside it."""
    return model.endswith(".safetensors") and Path(model).is_file()


def pin_pipeline(recipe: Recipe) -> Recipe:
    """Returns the recipe with `revision`, `model_dir` and `scheduler` filled in.

    The content of a directory pins it; a commit pins a Hub id.

    Raises:
        UserError: the directory is not a pipeline or differs from the recipe's revision, or the Hub gives no commit.
    """
    path, directory = model_path(recipe), model_directory(recipe)
    if not path:
        recipe = replace(recipe, revision=hub_commit(recipe.model, recipe.revision))
        return replace(recipe, scheduler=recipe.scheduler or _scheduler_on_hub(recipe))
    if not (Path(directory) / "model_index.json").is_file():
        if path != directory:
            raise UserError(
                f"'{path}' is a single-file checkpoint; put its pipeline's model_index.json and folders of JSON files beside it"
            )
        raise UserError(
            f"'{directory}' is not a diffusers pipeline (no model_index.json); give --model a Hub id or a pipeline"
        )
    if recipe.variant and path != directory:
        raise UserError(f"'{path}' is a single-file checkpoint, which has no variants; leave --variant out")
    digest = pipeline_digest(path)
    if recipe.revision and recipe.revision != digest:
        raise UserError(
            f"the model in '{path}' is {digest}, but the recipe was made with {recipe.revision}; give --model that "
            f"model, or --revision {digest} as well to make another clone with this one"
        )
    name = recipe.model if recipe.model != path else Path(path).resolve().name
    scheduler = recipe.scheduler or _scheduler_name(Path(directory) / SCHEDULER)
    return replace(recipe, model=name, revision=digest, model_dir=path, scheduler=scheduler)


@lru_cache(maxsize=4)
def pipeline_digest(model: str) -> str:
    """Returns "sha256:…" over the files of a pipeline's directory.

    Of a single-file checkpoint's directory, only that file and its pipeline's configuration count.
    """
    if is_checkpoint(model):
        return files_digest(Path(model).parent, _checkpoint_files(Path(model)))
    return directory_digest(model)


def _checkpoint_files(checkpoint: Path) -> list[Path]:
    index = checkpoint.parent / "model_index.json"
    folders = [checkpoint.parent / name for name in json.loads(index.read_text(encoding="utf-8"))]
    inner = [path for folder in folders if folder.is_dir() for path in folder.rglob("*")]
    return sorted([checkpoint, index, *(path for path in inner if path.suffix != ".safetensors")])


def _scheduler_name(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"the model's scheduler cannot be read from '{path}'; give --scheduler its class") from None


def _scheduler_on_hub(recipe: Recipe) -> str:
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(recipe.model, SCHEDULER, revision=recipe.revision)
    except Exception as error:  # the client raises all kinds of errors without a network or for an odd name
        raise hub_error(
            f"cannot read the scheduler of '{recipe.model}'", error, recipe.model, "give --scheduler its class"
        ) from None
    return _scheduler_name(Path(path))
