from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from builders.card.assets import CardAssets
from builders.card.render import card_metadata, known_failures, model_license, render_card, render_recipe_card
from builders.diffusion.pin import pin_embedded
from builders.format.manifest import Manifest, ShardEntry, Verdicts
from builders.planning.plan import Plan
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.registry import find_recipe, recipes_named

ROOT = Path(__file__).parent.parent.parent.parent


def read_yaml(clone: Path) -> dict[str, object]:
    fields: dict[str, object] = yaml.safe_load((clone / "README.md").read_text().split("---\n")[1])
    return fields


def test_render__yaml_lists_files_features_splits_and_digest(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    out, manifest = finished
    fields = read_yaml(out)
    assert fields == card_metadata(real_plan.recipe, manifest)
    assert fields["configs"] == [
        {"config_name": "default", "data_files": [{"split": "test", "path": [s.name for s in manifest.shards]}]}
    ]
    assert fields["fakeit"] == {"recipe_hash": manifest.recipe_hash, "digest": manifest.digest}


def test_render__version_follows_the_digest(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    manifest = finished[1]
    shorter = replace(manifest, shards=manifest.shards[:-1])
    versions = {card_metadata(real_plan.recipe, m)["dataset_info"]["version"] for m in (manifest, shorter)}
    assert len(versions) == 2


def test_render__page_has_every_class_with_its_count(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    page = (finished[0] / "README.md").read_text()
    for label, (entry, count) in enumerate(zip(real_plan.recipe.classes, real_plan.class_counts(), strict=True)):
        assert f"| {label} | {entry.wnid} | {entry.name} | {count} |" in page


@pytest.mark.parametrize("builder", ["digits_sd", "imagenet_100_sd", "imagenet_1k_sd"])
def test_render__the_cards_of_shipped_configs_are_up_to_date(builder: str) -> None:
    names = recipes_named(builder)
    assert len(names) == 12
    for name in names:
        expected = render_recipe_card(pin_embedded(find_recipe(name, {})))
        assert (ROOT / "cards" / f"{name}.md").read_text() == expected, f"run 'fakeit-build card {builder}'"


def test_render__failures_are_those_of_the_prompt_and_the_model() -> None:
    plain, hypernyms = (find_recipe(f"imagenet_100_sd/{name}", {}) for name in ("c_cfg2", "c_h_inside_b_cfg2"))
    assert {"n02086910", "n01978455"} <= {wnid for wnid, _, _ in known_failures(plain)}
    added = {wnid for wnid, _, _ in known_failures(hypernyms)} - {wnid for wnid, _, _ in known_failures(plain)}
    assert added == {"n02086240", "n02859443", "n04229816", "n04067472"}
    assert known_failures(replace(plain, model="another/model")) == []


def test_render__failures_name_classes_of_imagenet() -> None:
    whole = find_recipe("imagenet_1k_sd/c_cfg2", {"prompt": "{c} {h_c} {d_c} {b}"})
    assert len(known_failures(whole)) == 13
    assert "have the same prompt 'crane'" in render_recipe_card(find_recipe("imagenet_1k_sd/c_cfg2", {}))


def test_render__license_follows_the_model() -> None:
    assert model_license("CompVis/stable-diffusion-v1-4") == "creativeml-openrail-m"
    assert model_license("nobody/knows") == "other"


def test_render__verdicts_of_the_checker_are_counted_by_class(generated: Recipe) -> None:
    shard = ShardEntry(
        name="a", num_samples=9, num_bytes=1, sha256="x", environment=0,
        verdicts=Verdicts(num_unchecked=2, flagged={"n02": 3}, broken={"n02": 1}, remade={"n01": 4}),
    )  # fmt: skip
    manifest = Manifest(
        recipe={}, recipe_hash="", split="train", image_format="jpg", label_names=generated.label_names, num_rounds=6,
        is_synthetic=True, environments=[{"torch": "2"}], executions=[asdict(Execution())], shards=[shard, shard], metadata=[],
    )  # fmt: skip
    page = render_card(manifest, generated, CardAssets())
    assert (
        "Of 14 images checked, 6 were flagged and kept" in page
        and "8 attempts were broken, and generated again" in page
    )
    assert "2 images are broken" in page and "| n03 | three, 3 | 0" not in page
    assert "| n02 | two, 2 | 6 | 2 | 0 |" in page and "| n01 | one, 1 | 0 | 0 | 8 |" in page
