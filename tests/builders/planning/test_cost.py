"""Costs: operations against those that torch counts in a running pipeline, and times against a closed form."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from builders.cli.main import main
from builders.diffusion.acceleration import denoiser_of
from builders.diffusion.operations import count_operations
from builders.diffusion.sampling import Sampler
from builders.digits_sd import DigitsSD
from builders.engines import diffusion
from builders.engines.base import complete_recipe, pin_model
from builders.errors import UserError
from builders.planning.cost import SHARE, cards, estimated_cost, measured_cost, num_batches
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from tests.in_process import call
from tests.tiny_families import TINY, write_tiny_family

FAST = ("Stable Diffusion XL", "Flux dev")


def counted_in_a_pipeline(recipe: Recipe) -> tuple[list[tuple[int, int]], int]:
    """Returns rows and operations of each call of the denoiser for one image, and the length of its text."""
    sampler = diffusion.load(recipe, Execution(batch_size=1))
    assert isinstance(sampler, Sampler)
    denoiser, calls, lengths = denoiser_of(sampler.pipeline), [], []
    forward = denoiser.forward

    def count(*arguments: Any, **keywords: Any) -> Any:
        def own(value: Any) -> Any:
            return value.clone() if isinstance(value, torch.Tensor) else value

        text: Any = keywords.get("encoder_hidden_states", keywords.get("cap_feats", (*arguments, 0, 0, 0)[2]))
        latents: Any = arguments[0] if arguments else keywords.get("hidden_states", keywords.get("sample"))
        lengths.append(text[0].shape[0])
        # The counter's hooks need tensors that autograd could see.
        with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
            found = forward(*tree_map(own, arguments), **tree_map(own, keywords))
        calls.append((len(latents), counter.get_total_flops()))
        return found

    denoiser.forward = count
    try:
        sampler([Plan(recipe, 6).sample_at(0)])
    finally:
        denoiser.forward = forward
    return calls, lengths[0]


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.long) for name in TINY if name not in FAST)]
)
def test_operations__are_those_of_the_running_pipeline(name: str, recipe: Recipe, tmp_path: Path) -> None:
    given = {"model": str(write_tiny_family(name, tmp_path / "tiny")), "width": 32, "height": 32, "dtype": "float32"}
    named = complete_recipe(replace(recipe, model="other", safety="off"), given)
    tiny = pin_model(replace(named, num_inference_steps=3))
    calls, length = counted_in_a_pipeline(tiny)
    found = count_operations(tiny, length)
    assert sum(rows for rows, _ in calls) == found.num_passes
    rows, count = calls[0]
    # Klein's pipeline leaves out the embedding of a guidance scale that its configuration has.
    assert count == pytest.approx(rows * found.denoiser.total, rel=1e-3 if "klein" in name else 0)


def write_stable_diffusion_1_4(folder: Path) -> Path:
    """Writes the configuration of Stable Diffusion 1.4, as on the Hub, without weights."""
    files = {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "scheduler": ["diffusers", "PNDMScheduler"],
        },
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "attention_head_dim": 8,
            "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 768,
            "sample_size": 64,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "layers_per_block": 2,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "PNDMScheduler",
            "skip_prk_steps": True,
            "beta_schedule": "scaled_linear",
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def test_operations__stable_diffusion_1_4(recipe: Recipe, tmp_path: Path) -> None:
    model = str(write_stable_diffusion_1_4(tmp_path / "sd"))
    square = replace(recipe, model=model, scheduler="PNDMScheduler", width=512, height=512, num_inference_steps=50)
    found = count_operations(square)
    assert round(found.denoiser.total / 1e9) == 803
    # PNDM visits one timestep twice, and guidance doubles the passes.
    assert (found.num_timesteps, found.num_passes) == (51, 102)
    assert round(count_operations(replace(square, height=384)).denoiser.total / 1e9) == 580
    half = count_operations(replace(square, scheduler="DPMSolverMultistepScheduler", guidance_interval="0.2:0.6"))
    assert (half.num_timesteps, half.num_passes) == (50, 70)
    assert count_operations(replace(square, guidance_scale=1.0)).num_passes == 51


def test_cost__hours_are_operations_by_peak_and_share() -> None:
    plan = Plan(DigitsSD.recipe("c_cfg2", dtype="float16", width=64, height=64), 1_000_000)
    total = count_operations(plan.recipe).image.total
    hours = 1e7 * total / (312e12 * SHARE) / 3600
    (_, line) = estimated_cost(plan, "a100")
    assert line.startswith(
        f"on a100: {hours * 60:.0f} min at 25% of its peak in float16, ${hours * 2.5:,.2f} at $2.50 an hour"
    )
    assert len(estimated_cost(plan)) == 1 + len(cards())


def test_cost__a_preview_gives_start_and_batches(tmp_path: Path) -> None:
    # Shards of 500 images in batches of 60: nine batches each, the last of which is padded.
    plan, execution = Plan(pin_model(DigitsSD.recipe("c_cfg2")), 200), Execution(batch_size=60)
    preview = {
        "recipe": {name: value for name, value in plan.recipe.to_dict().items() if name not in ("classes", "scenes")},
        "execution": asdict(execution),
        "environment": {"device": "cpu X"},
        "seconds_to_start": 8.0,
        "seconds_per_batch": 2.0,
    }
    file = tmp_path / "preview.json"
    file.write_text(json.dumps(preview))
    assert num_batches(plan, 60) == 36
    assert measured_cost(plan, file, execution) == [
        f"on cpu X, as measured by {file} with one worker: 80 s for 2,000 images in batches of 60"
    ]
    with pytest.raises(UserError, match="was made with num_inference_steps 4, and this recipe has 8; make a preview"):
        measured_cost(Plan(replace(plan.recipe, num_inference_steps=8), 200), file, execution)
    with pytest.raises(UserError, match="give the same options"):
        measured_cost(plan, file, Execution(batch_size=61))
    file.write_text("{}")
    with pytest.raises(UserError, match=r"is no preview\.json"):
        measured_cost(plan, file, execution)


def test_cost__a_preview_is_read_by_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("digits_sd/c_cfg2", "--batch-size", 4, "--images-per-class", 5)
    made = call(main, "make", options[0], "out", *options[1:], "--preview", 8)
    assert made.returncode == 0, made.stderr
    planned = call(main, "plan", *options, "--cost", "--measured", "preview.json")
    assert planned.returncode == 0 and "for 50 images in batches of 4" in planned.stdout, planned


def test_cost__mistakes_are_one_sentence(tmp_path: Path) -> None:
    for arguments, sentence in (
        (("--on", "a100"), "--on belongs to --cost; give that too"),
        (("--cost", "--on", "a101"), "unknown card 'a101'; did you mean a100?"),
        (("--measured", "preview.json"), "--measured belongs to --cost; give that too"),
        (("--cost", "--measured", tmp_path / "none.json"), "make one with fakeit-build make … --preview 20"),
    ):
        ended = call(main, "plan", "digits_sd/c_cfg2", *arguments)
        assert ended.returncode == 2 and sentence in ended.stderr and "Traceback" not in ended.stderr, ended
