from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.format.errors import UserError
from builders.making.engines import diffusion
from builders.making.models import EMBEDDED, directory_digest, pin_model
from builders.making.pipelines.loading import load_pipeline
from builders.making.plan import Plan, Sample
from builders.making.recipe import Recipe


def pixels(recipe: Recipe, samples: list[Sample]) -> list[bytes]:
    return [np.asarray(painted.picture).tobytes() for painted in diffusion.load(recipe)(samples)]


@pytest.fixture
def samples(painted: Recipe) -> list[Sample]:
    return Plan(painted, 6).shard_samples(0)[:4]


def test_diffusion__pictures_have_the_recipes_size(painted: Recipe, samples: list[Sample]) -> None:
    found = diffusion.load(replace(painted, width=24))(samples)
    assert [np.shape(p.picture) for p in found] == [(16, 24, 3)] * 4
    assert all(p.nsfw == -1 for p in found)


def test_diffusion__bytes_depend_neither_on_neighbours_nor_on_the_slot(painted: Recipe, samples: list[Sample]) -> None:
    together = pixels(painted, samples)
    assert pixels(painted, samples[::-1]) == together[::-1]
    assert pixels(painted, samples[2:3]) == together[2:3]
    assert len(set(together)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"num_inference_steps": 3},
        {"negative_prompt": "number"},
        {"scheduler": "DDIMScheduler"},
    ],
)
def test_diffusion__settings_reach_the_pipeline(
    painted: Recipe, samples: list[Sample], changes: dict[str, object]
) -> None:
    changed = replace(painted, **changes)  # type: ignore[arg-type]
    assert pixels(changed, samples) != pixels(painted, samples)


def test_diffusion__prompt_and_seed_each_make_another_picture(painted: Recipe, samples: list[Sample]) -> None:
    sample = samples[0]
    variants = [sample, replace(sample, seed=1), replace(sample, prompt="three")]
    assert len(set(pixels(painted, variants))) == 3


def test_diffusion__without_guidance_no_unconditional_pass_is_run(painted: Recipe, samples: list[Sample]) -> None:
    sizes = []
    recipe = replace(painted, guidance_scale=1.0)
    pipeline = load_pipeline(recipe)
    hook = pipeline.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    pixels(recipe, samples)
    hook.remove()
    assert set(sizes) == {4}


@pytest.mark.parametrize(
    ("changes", "words"), [({"scheduler": "NoScheduler"}, "NoScheduler"), ({"model_dir": "/"}, "cannot be")]
)
def test_diffusion__mistakes_are_told(painted: Recipe, changes: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_pipeline(replace(painted, **changes))  # type: ignore[arg-type]


def test_models__a_directory_is_pinned_by_its_content(recipe: Recipe, tiny_pipeline: Path) -> None:
    pinned = pin_model(replace(recipe, model=str(tiny_pipeline)))
    assert (pinned.model, pinned.model_dir) == ("tiny-sd", str(tiny_pipeline))
    assert pinned.revision == directory_digest(str(tiny_pipeline))
    assert pin_model(pinned) == pinned
    with pytest.raises(UserError, match="was made with sha256:other"):
        pin_model(replace(pinned, revision="sha256:other"))


def test_models__what_is_no_model_is_told(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model_index\.json"):
        pin_model(replace(recipe, model=str(tmp_path)))
    with pytest.raises(UserError, match=r"cannot look up model 'nobody/nothing'.*--revision"):
        pin_model(replace(recipe, model="nobody/nothing"))


def test_models__the_embedded_one_is_there_and_small(recipe: Recipe) -> None:
    pinned = pin_model(replace(recipe, model=EMBEDDED))
    assert pinned.model == EMBEDDED and pinned.revision.startswith("sha256:")
    assert sum(path.stat().st_size for path in Path(pinned.model_dir).rglob("*")) < 8_000_000
