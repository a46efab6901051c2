"""Estimates the disk space of a plan: the clone, and the model in the Hub's cache."""

from pathlib import Path

from builders.diffusion.pin import model_path
from builders.engines.base import engine
from builders.images.source import read_source
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

BYTES_A_PIXEL = {"jpg": 0.38, "webp": 0.32, "png": 1.63}
"""Bytes per pixel of photographs at quality 95. The content decides; half or twice as many bytes are common
(benchmarks/results/2026-11-25-sizes.md)."""
BYTES_A_SAMPLE = 3_700
"""Bytes of a sample besides its image: json, label, tar headers and metadata."""


def disk_space(plan: Plan, execution: Execution) -> list[str]:
    """Returns lines for `fakeit-build plan`: the bytes of clone and model, and what automatic batch sizes mean."""
    lines = []
    if engine(plan.recipe.engine).IS_SYNTHETIC:
        model = _model_bytes(plan.recipe)
        of_model = f", {_size(model)} for the model" if model else ""
        lines.append(f"disk: about {_size(_clone_bytes(plan))} for the clone{of_model}")
    elif plan.recipe.model_dir:
        lines.append(f"disk: about {_size(_source_bytes(plan))} for the clone")
    if execution.is_auto:
        lines.append("batch sizes depend on the machines (--batch-size auto), and so do the last bits of images")
    return lines


def _clone_bytes(plan: Plan) -> float:
    recipe = plan.recipe
    return plan.num_samples * (recipe.width * recipe.height * BYTES_A_PIXEL[recipe.image_format] + BYTES_A_SAMPLE)


def _source_bytes(plan: Plan) -> float:
    """Estimates the bytes of a clone of real images, which keeps most files as they are."""
    source = read_source(plan.recipe.model_dir)
    files = [file for images in source.images.values() for file in images]
    mean = sum(Path(plan.recipe.model_dir, file.path).stat().st_size for file in files) / max(len(files), 1)
    return plan.num_samples * (mean + BYTES_A_SAMPLE)


def _model_bytes(recipe: Recipe) -> int | None:
    """Returns the bytes of the model's weights, on this machine or on the Hub; None if the Hub does not say."""
    if path := model_path(recipe):
        weights = Path(path).rglob("*.safetensors") if Path(path).is_dir() else [Path(path)]
        return sum(file.stat().st_size for file in weights)
    try:
        import huggingface_hub

        info = huggingface_hub.model_info(
            recipe.model, revision=recipe.revision or None, files_metadata=True, timeout=5
        )
    except Exception:  # no network, no such model, or huggingface_hub is not installed: `make` reports it
        return None
    files = [file for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
    variant = f".{recipe.variant or 'fp16'}."
    whole = [file for file in files if "/" in file.rfilename and (variant in file.rfilename) == bool(recipe.variant)]
    return sum(file.size or 0 for file in whole) or None


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
