"""What a plan will take on the disk: the clone, and the model in the Hub's cache."""

from pathlib import Path

from builders.diffusion.pin import embedded_dir, is_embedded
from builders.engines.base import engine
from builders.images.source import read_source
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe

BYTES_A_PIXEL = {"jpg": 0.38, "webp": 0.32, "png": 1.63}
"""Of photographs at quality 95; the content decides, and half as many or twice as many are common
(benchmarks/results/2026-11-25-sizes.md)."""
BYTES_A_SAMPLE = 3_700
"""Json, label, tar headers and metadata."""


def disk_space(plan: Plan, execution: Execution) -> list[str]:
    """Lines for `fakeit-build plan`: bytes of the clone and of the model, and what batches mean for its bytes."""
    lines = []
    if engine(plan.recipe.engine).IS_SYNTHETIC:
        model = _model_bytes(plan.recipe)
        of_model = f", {_size(model)} for the model" if model else ""
        lines.append(f"disk: about {_size(_clone_bytes(plan))} for the clone{of_model}")
    elif plan.recipe.model_dir:
        lines.append(f"disk: about {_size(_source_bytes(plan))} for the clone")
    if execution.is_auto:
        lines.append("batches follow the machines (--batch-size auto), so the last bits of images do, too")
    return lines


def _clone_bytes(plan: Plan) -> float:
    recipe = plan.recipe
    return plan.num_samples * (recipe.width * recipe.height * BYTES_A_PIXEL[recipe.image_format] + BYTES_A_SAMPLE)


def _source_bytes(plan: Plan) -> float:
    """Bytes of a clone of real images, whose files are mostly kept as they are."""
    source = read_source(plan.recipe.model_dir)
    files = [file for images in source.images.values() for file in images]
    mean = sum(Path(plan.recipe.model_dir, file.path).stat().st_size for file in files) / max(len(files), 1)
    return plan.num_samples * (mean + BYTES_A_SAMPLE)


def _model_bytes(recipe: Recipe) -> int | None:
    """Bytes of the model's weights, here or on the Hub; None where the Hub does not say."""
    directory = embedded_dir() if is_embedded(recipe) else Path(recipe.model_dir or recipe.model)
    if directory.is_dir():
        return sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
    try:
        import huggingface_hub

        info = huggingface_hub.model_info(
            recipe.model, revision=recipe.revision or None, files_metadata=True, timeout=5
        )
    except Exception:  # no network, no such model, or the library is not here: `make` says so
        return None
    files = [file for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
    whole = [file for file in files if "/" in file.rfilename and ".fp16." not in file.rfilename]
    return sum(file.size or 0 for file in whole) or None


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
