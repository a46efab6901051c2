import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.diffusion.pin import EMBEDDED, embedded_dir
from builders.diffusion.token_counts import fetch_tokenizers, read_tokenizer
from builders.imagenet_1k_sd import ImageNet1KSD
from builders.planning.plan import Plan
from builders.planning.prompt_warnings import prompt_warnings
from builders.recipes.prompts import render_prompt
from builders.recipes.recipe import Recipe

LONG = "one two three " * 12


def test_prompt_warnings__classes_with_the_same_name_are_reported() -> None:
    whole, lemmas = (ImageNet1KSD.recipe("c_cfg2", prompt=prompt) for prompt in ("{c}", "{lemma}"))
    same, uncounted = prompt_warnings(Plan(whole, 1))
    assert "crane" in same and "not counted" in uncounted and "CompVis/stable-diffusion-v1-4" in uncounted
    found = "\n".join(prompt_warnings(Plan(lemmas, 1)))
    assert "classes n02012849, n03126707 have the same prompt 'crane'" in found and "'maillot'" in found
    assert prompt_warnings(Plan(ImageNet1KSD.recipe("c_d_cfg2"), 1)) == [uncounted]


def test_prompt_warnings__classes_that_one_of_several_templates_distinguishes_are_not_reported(tmp_path: Path) -> None:
    for lines, expected in (("{lemma}\n", "n02012849, n03126707"), ("{lemma}\n{d_c}\n", "")):
        (tmp_path / "t.txt").write_text(lines)
        found = prompt_warnings(Plan(ImageNet1KSD.recipe("c_cfg2", prompts=str(tmp_path / "t.txt")), 1))
        assert expected in "\n".join(found) and any("same prompt" in line for line in found) == bool(expected)


def test_prompt_warnings__a_negative_prompt_without_guidance_is_reported(generated: Recipe) -> None:
    requested = replace(generated, negative_prompt="drawing")
    assert prompt_warnings(Plan(requested, 1)) == []
    (message,) = prompt_warnings(Plan(replace(requested, guidance_scale=1.0), 1))
    assert message == "negative_prompt 'drawing' changes nothing in images of Stable Diffusion 1.x with these settings"


def test_prompt_warnings__tokens_are_counted_for_a_cached_model_of_the_hub(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--a--b"
    shutil.copytree(embedded_dir() / "tokenizer", cached / "snapshots" / "0123abc" / "tokenizer")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123abc")
    requested = replace(recipe, model="a/b", revision="", prompt="{c} " + LONG * 3)
    for revision in ("", "main", "0123abc"):
        assert "3 of 3" in prompt_warnings(Plan(replace(requested, revision=revision), 1))[0]
    (cached / "snapshots/0123abc/tokenizer/tokenizer.json").write_text("broken")
    assert "tokenizer cannot be read" in prompt_warnings(Plan(requested, 1))[0]


def test_prompt_warnings__cut_prompts_are_counted(recipe: Recipe) -> None:
    recipe = replace(recipe, model=EMBEDDED)
    assert prompt_warnings(Plan(recipe, 1)) == []
    (found,) = prompt_warnings(Plan(replace(recipe, prompt="{c} " + LONG * 3), 1))
    assert found.startswith("3 of 3 different prompts (3 classes: n01, n02, n03) are longer than the 77 tokens")


def test_prompt_warnings__backgrounds_are_counted_one_by_one(recipe: Recipe) -> None:
    tokenizer = read_tokenizer(embedded_dir() / "tokenizer")
    assert tokenizer is not None
    scenes = ("sky", "desert/sand", "wheat_field", "ocean")
    for repeats in range(30, 76):
        prompt = "{lemma} inside {b}" + " one" * repeats
        requested = replace(recipe, model=EMBEDDED, scenes=scenes, prompt=prompt)
        phrases = ["sky", "sand desert", "wheat field", "ocean"]
        texts = [render_prompt(prompt, entry, phrase) for entry in recipe.classes for phrase in phrases]
        slow = sum(len(tokenizer.encode(text).ids) > 77 for text in texts)
        found = prompt_warnings(Plan(requested, 1))
        assert found == [] if slow == 0 else found[0].startswith(f"{slow} of 12 different prompts")


def test_prompt_warnings__the_light_tokenizer_agrees_with_transformers(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    shutil.copytree(embedded_dir() / "tokenizer", tmp_path / "tokenizer")
    whole = read_tokenizer(tmp_path / "tokenizer")
    assert whole is not None
    stock = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    texts = ["three, 3, III", "R.V. isn't  it", "Café 42!", ""]
    assert [whole.encode(text).ids for text in texts] == stock(texts)["input_ids"]
    whole.model.save(str(tmp_path / "tokenizer"))  # writes vocab.json and merges.txt, as in the original releases
    (tmp_path / "tokenizer/tokenizer.json").unlink()
    old = read_tokenizer(tmp_path / "tokenizer")
    assert old is not None
    assert [old.encode(text).ids for text in texts] == [
        whole.encode(text, add_special_tokens=False).ids for text in texts
    ]


@pytest.mark.parametrize("name", ["tokenizer_3", "tokenizer_2"])
def test_prompt_warnings__every_text_encoder_is_checked(recipe: Recipe, tmp_path: Path, name: str) -> None:
    from tests.tiny_families import write_tiny_family

    write_tiny_family("Stable Diffusion 3.x", tmp_path / "sd3")
    requested = replace(recipe, model=str(tmp_path / "sd3"), prompt="{c} " + LONG * 3)
    found = "\n".join(prompt_warnings(Plan(requested, 1)))
    assert (f"its {name.replace('tokenizer', 'text encoder')} reads" in found) == (name == "tokenizer_2")


def test_prompt_warnings__a_missing_tokenizer_is_only_a_warning(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = replace(recipe, model="nobody/nothing", revision="a" * 40)
    fetch_tokenizers(requested)
    assert "the tokenizer of 'nobody/nothing' is not on this machine" in "".join(prompt_warnings(Plan(requested, 1)))
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    assert "the tokenizer of 'nobody/nothing' is not on this machine" in "".join(prompt_warnings(Plan(requested, 1)))
