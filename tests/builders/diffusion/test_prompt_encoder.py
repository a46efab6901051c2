from dataclasses import replace
from pathlib import Path

import pytest
import torch

from builders.diffusion import prompt_encoder
from builders.diffusion.families import FAMILIES
from builders.diffusion.family import Family
from builders.diffusion.loading import load_pipeline
from builders.diffusion.prompt_encoder import PromptEncoder
from builders.engines.base import pin_model
from builders.recipes.recipe import Recipe
from tests.conftest import EXECUTION
from tests.tiny_families import as_parameters, write_tiny_family

BY_NAME = {family.name: family for family in FAMILIES}
PROMPTS = ["one", "two three", "a digit inside sky", "number"]


@pytest.fixture(scope="module", params=as_parameters(family.name for family in FAMILIES if family.embeddings))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_family(request.param, tmp_path_factory.mktemp("family") / request.param)


def encoder(recipe: Recipe, family: Path, *, negative_prompt: str = "", is_guided: bool = True) -> PromptEncoder:
    row = BY_NAME[family.name]
    scale = 5.0 if is_guided else 1.0
    pinned = pin_model(replace(recipe, model=str(family), scheduler="", negative_prompt=negative_prompt))
    scaled = replace(pinned, guidance_scale=scale, true_cfg_scale=scale)
    return PromptEncoder(load_pipeline(pinned, EXECUTION), row, scaled)


def embed(used: PromptEncoder, prompts: list[str]) -> dict[str, torch.Tensor]:
    return {name: rows for name, rows in used(prompts).items() if rows is not None}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_prompt_encoder__embeddings_depend_neither_on_neighbors_nor_on_earlier_prompts(
    recipe: Recipe, family: Path
) -> None:
    alone = [embed(encoder(recipe, family), [prompt]) for prompt in PROMPTS]
    used = encoder(recipe, family)
    used(["sky", "one one one"])
    together = embed(used, PROMPTS[::-1] + PROMPTS)
    for where, expected in enumerate([*alone[::-1], *alone]):
        assert equal({name: rows[where : where + 1] for name, rows in together.items()}, expected)


def test_prompt_encoder__a_full_cache_changes_nothing(
    recipe: Recipe, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed(encoder(recipe, family), PROMPTS)
    size = sum(rows.nbytes for rows in expected.values()) // len(PROMPTS)
    monkeypatch.setattr(prompt_encoder, "CACHE_BYTES", 2 * size)
    small = encoder(recipe, family)
    for _ in range(3):
        assert equal(embed(small, PROMPTS), expected)
        assert small._cache.currsize <= 2 * size


def test_prompt_encoder__a_known_prompt_is_not_encoded_again(recipe: Recipe, family: Path) -> None:
    used = encoder(recipe, family)
    used(PROMPTS)
    calls: list[object] = []
    used._encode = lambda *args, **kwargs: calls.append(args)  # type: ignore[method-assign,assignment,return-value]
    used(PROMPTS[1:])
    assert calls == []


def test_prompt_encoder__without_guidance_there_is_no_negative_embedding(recipe: Recipe, family: Path) -> None:
    names = encoder(recipe, family, is_guided=False, negative_prompt="sky")(PROMPTS)
    assert not any(rows is not None and name.startswith("negative") for name, rows in names.items())


def test_prompt_encoder__negative_prompts_are_embedded(recipe: Recipe, family: Path) -> None:
    plain, negative = (embed(encoder(recipe, family, negative_prompt=text), PROMPTS) for text in ("", "sky"))
    assert torch.equal(plain["prompt_embeds"], negative["prompt_embeds"])
    if BY_NAME[family.name].negative_prompt == "no":
        assert equal(plain, negative) and "negative_prompt_embeds" not in plain
    else:
        assert not torch.equal(plain["negative_prompt_embeds"], negative["negative_prompt_embeds"])


def test_prompt_encoder__other_families_get_prompts_as_text(recipe: Recipe) -> None:
    class Other:
        def __call__(self, prompt: list[str], negative_prompt: list[str]) -> None: ...

    row = Family(name="Other", pipeline="Other")
    assert PromptEncoder(Other(), row, replace(recipe, negative_prompt="sky"))(["one", "two"]) == {
        "prompt": ["one", "two"],
        "negative_prompt": ["sky", "sky"],
    }
