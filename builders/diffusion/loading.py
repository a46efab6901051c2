"""Loads a text-to-image pipeline of diffusers and its safety checker, from safetensors only and without remote code.

The checker never blackens images. Only this module, `signature.py` and the embedded model's training import diffusers.
"""

import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from numpy.typing import NDArray

from builders.diffusion.families import Family
from builders.diffusion.family_defaults import family_of
from builders.diffusion.pin import is_checkpoint, model_directory
from builders.errors import OutOfMemoryError, UserError, first_line, suggest
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.storage.hub_error import hub_error

Check = Callable[[NDArray[np.uint8]], list[int]]
"""A safety checker: maps images (n, height, width, 3) to n verdicts, 1 for flagged and 0 for not flagged."""


@lru_cache(maxsize=1)
def device() -> torch.device:
    """Returns the CUDA GPU, or else the CPU. Apple's mps is not used: nobody has compared its images with a CPU's."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        warnings.warn(
            "images are generated on the CPU: this machine has an Apple GPU, and only CUDA GPUs are used", stacklevel=1
        )
    return torch.device("cpu")


def load_pipeline(recipe: Recipe, execution: Execution) -> Any:
    """Returns the recipe's pipeline, on the GPU if there is one. Recipes that differ only in guidance or size share it.

    Raises:
        UserError: the model cannot be found or is not a text-to-image pipeline, or the scheduler is unknown.
    """
    try:
        with quiet():
            pipeline, own = _loaded_modules(
                *_source(recipe), recipe.variant, recipe.dtype,
                execution.channels_last, execution.compile, execution.vae_slicing,
            )  # fmt: skip
    except Exception as error:  # the libraries raise all kinds of errors for a damaged directory
        way_out = "give --model a Hub id or a directory of a text-to-image pipeline with safetensors"
        if variants := _variants(recipe):
            way_out = f"its weights are of variant {variants[0]}: give --variant {variants[0]}"
        raise out_of_memory(recipe, execution, error) or hub_error(
            f"model '{recipe.model}' cannot be loaded", error, recipe.model, way_out
        ) from None
    is_own = type(own).__name__ == recipe.scheduler
    pipeline.scheduler = own if is_own else _compatible_scheduler(own, recipe.scheduler)
    return pipeline


def load_family(recipe: Recipe) -> Family:
    """Returns the family of the recipe's model.

    Raises:
        UserError: the model's configuration cannot be read, or its class does not say how it is called.
    """
    found = family_of(recipe)
    if found is None:
        raise UserError(
            f"model '{recipe.model}' has no model_index.json; give --model a Hub id or a directory of a text-to-image "
            "pipeline with safetensors"
        )
    return found.family


def out_of_memory(recipe: Recipe, execution: Execution, error: Exception) -> OutOfMemoryError | None:
    """Returns the error to report for a batch that does not fit into memory (GPU or CPU); None for any other error."""
    words = ("allocate memory", "out of memory", "ALLOC_FAILED")
    is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(w in str(error) for w in words)
    if not is_memory:
        return None
    size = execution.batch_size
    what = f"out of memory with batches of {size} at {recipe.width}x{recipe.height}"
    ways = "try --vae-slicing, or a smaller model" if size == 1 else f"try --batch-size {size // 2}, or auto"
    return OutOfMemoryError(f"{what}; {ways}")


@contextmanager
def quiet() -> Iterator[None]:
    """Turns the libraries' progress bars off while a model is loaded. Their warnings are shown."""
    libraries = [library for library in (diffusers, transformers) if library.utils.logging.is_progress_bar_enabled()]
    for library in libraries:
        library.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.utils.logging.enable_progress_bar()


KNOWN_WARNINGS = ("was truncated because", "Token indices sequence length", "was removed because", "Potential NSFW")
"""What the libraries say in every batch: about long prompts, as `plan` says once, and of flagged images that they are
blackened, which they never are here."""


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """Leaves `KNOWN_WARNINGS` out of the libraries' log, and shows all others."""

    def is_other(record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in KNOWN_WARNINGS)

    handlers = [handler for name in ("diffusers", "transformers") for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(is_other)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_other)


@contextmanager
def process_settings(execution: Execution) -> Iterator[None]:
    """Sets the process-wide settings that bytes depend on (CPU threads, cuDNN's algorithms), then restores them."""
    before = torch.get_num_threads()
    if before != execution.num_threads:
        torch.set_num_threads(execution.num_threads)
    try:
        # With `benchmark`, cuDNN times algorithms to choose one; some algorithms sum in a varying order.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        if before != execution.num_threads:
            torch.set_num_threads(before)


def load_check(recipe: Recipe, execution: Execution) -> Check | None:
    """Loads the model's own safety checker; returns None if `recipe.safety` is off, or if the model has no checker.

    Raises:
        UserError: `recipe.safety` is drop but the model has no checker, or the checker cannot be loaded.
    """
    if recipe.safety == "off":
        return None
    source, revision = _config_source(recipe)
    try:
        with quiet():
            config = diffusers.DiffusionPipeline.load_config(source, revision=revision)
        if (config.get("safety_checker") or [None, None])[1] != StableDiffusionSafetyChecker.__name__:
            if recipe.safety == "drop":
                raise UserError(
                    f"model '{recipe.model}' has no safety checker, which drop needs; give --safety flag or off"
                )
            return None
        with quiet():
            return _load_check(source, revision, recipe.variant, recipe.dtype)
    except UserError:
        raise
    except Exception as error:
        raise out_of_memory(recipe, execution, error) or UserError(
            f"the safety checker of '{recipe.model}' cannot be loaded ({first_line(error)}); give --safety off to do without"
        ) from None


def _variants(recipe: Recipe) -> list[str]:
    """Returns the variants of a local model that has no other weights: ["fp16"] for *.fp16.safetensors."""
    names = [path.name.split(".") for path in Path(recipe.model_dir or "-").glob("*/*.safetensors")]
    found = {name[1].split("-")[0] if len(name) == 3 else "" for name in names}
    return sorted(found - {recipe.variant}) if recipe.variant not in found and "" not in found else []


def _source(recipe: Recipe) -> tuple[str, str | None]:
    """Returns the directory, single file or Hub id of the recipe's model, and its revision."""
    return (recipe.model_dir, None) if recipe.model_dir else (recipe.model, recipe.revision)


def _config_source(recipe: Recipe) -> tuple[str, str | None]:
    """Returns the directory or Hub id of the model's configuration, and its revision."""
    return (model_directory(recipe), None) if recipe.model_dir else _source(recipe)


_last_loaded: dict[tuple[Any, ...], tuple[Any, Any]] = {}
"""The model that was loaded last, by the arguments that it was loaded with."""


def _loaded_modules(*key: Any) -> tuple[Any, Any]:
    """Caches the last result of `_load_modules`. Frees it before another model is loaded, so memory never holds two."""
    if key not in _last_loaded:
        _last_loaded.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _last_loaded[key] = _load_modules(*key)
    return _last_loaded[key]


def _load_modules(
    source: str,
    revision: str | None,
    variant: str,
    dtype: str,
    channels_last: bool,
    compiled: bool,
    vae_slicing: bool,
) -> tuple[Any, Any]:
    """Loads the pipeline; returns it and the scheduler that it came with."""
    is_single_file = is_checkpoint(source)
    config = diffusers.DiffusionPipeline.load_config(
        str(Path(source).parent) if is_single_file else source, revision=revision
    )
    left_out: dict[str, Any] = {}
    if "safety_checker" in config:
        left_out = {"safety_checker": None, "requires_safety_checker": False}
    if config["_class_name"].startswith("StableDiffusionXL"):
        # A watermark would be added only on machines where another package is installed.
        left_out = {"add_watermarker": False}
    if is_single_file:
        pipeline = getattr(diffusers, config["_class_name"]).from_single_file(
            source,
            config=str(Path(source).parent),
            local_files_only=True,
            torch_dtype=getattr(torch, dtype),
            **left_out,
        )
    else:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            source,
            revision=revision,
            variant=variant or None,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            **left_out,
        )
    pipeline.set_progress_bar_config(disable=True)
    if device().type != "cpu":
        pipeline.to(device())
    modules = pipeline.components
    if channels_last:
        # Videos' autoencoders, such as Qwen-Image's, have weights of five dimensions, which this format does not fit.
        convolutions = [p for n in ("unet", "vae") if n in modules for p in modules[n].parameters() if p.dim() == 4]
        for weights in convolutions:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    if vae_slicing:
        modules["vae"].enable_slicing()
    if compiled:
        modules["unet" if "unet" in modules else "transformer"].compile(dynamic=False)
    return pipeline, pipeline.scheduler


@lru_cache(maxsize=1)
def _load_check(source: str, revision: str | None, variant: str, dtype: str) -> Check:
    options = {"revision": revision} if revision else {}
    checker, loading = StableDiffusionSafetyChecker.from_pretrained(
        source,
        subfolder="safety_checker",
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        output_loading_info=True,
        variant=variant or None,
        **options,
    )
    if loading["missing_keys"]:
        raise ValueError(f"its weights lack {min(loading['missing_keys'])}")
    checker.to(device())
    # This extractor resizes with Pillow. The other backend needs torchvision and gives other pixels.
    extractor = transformers.CLIPImageProcessorPil.from_pretrained(source, subfolder="feature_extractor", **options)

    @torch.inference_mode()
    def check(images: NDArray[np.uint8]) -> list[int]:
        pixel_values = extractor(list(images), return_tensors="pt").pixel_values
        # The checker blackens the images that it flags, so it gets dummy images.
        _, flagged = checker(
            images=np.zeros((len(images), 1, 1, 3)), clip_input=pixel_values.to(device(), getattr(torch, dtype))
        )
        return [int(verdict) for verdict in flagged]

    return check


def _compatible_scheduler(own: Any, name: str) -> Any:
    """Returns the named scheduler with the configuration of the model's own, if it samples the same kind of model."""
    known = {kind.__name__: kind for kind in own.compatibles}
    if name not in known:
        raise UserError(f"unknown scheduler '{name}' for this model; {suggest(name, sorted(known))}")
    try:
        return known[name].from_config(own.config)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(
            f"scheduler '{name}' cannot be used ({first_line(error)}); choose another --scheduler"
        ) from None
