from pathlib import Path

import yaml

from builders.format.manifest import Manifest
from builders.making.plan import Plan
from builders.publishing.card import card_metadata


def read_yaml(clone: Path) -> dict[str, object]:
    fields: dict[str, object] = yaml.safe_load((clone / "README.md").read_text().split("---\n")[1])
    return fields


def test_card__yaml_names_files_features_splits_and_digest(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    out, manifest = finished
    fields = read_yaml(out)
    assert fields == card_metadata(real_plan.recipe, manifest)
    assert fields["configs"] == [
        {"config_name": "default", "data_files": [{"split": "test", "path": [s.name for s in manifest.shards]}]}
    ]
    assert fields["fakeit"] == {"recipe_hash": manifest.recipe_hash, "digest": manifest.digest}


def test_card__version_follows_the_digest(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    from dataclasses import replace

    manifest = finished[1]
    shorter = replace(manifest, shards=manifest.shards[:-1])
    versions = {card_metadata(real_plan.recipe, m)["dataset_info"]["version"] for m in (manifest, shorter)}
    assert len(versions) == 2


def test_card__page_has_every_class_with_its_count(finished: tuple[Path, Manifest], real_plan: Plan) -> None:
    page = (finished[0] / "README.md").read_text()
    for label, (entry, count) in enumerate(zip(real_plan.recipe.classes, real_plan.class_counts(), strict=True)):
        assert f"| {label} | {entry.wnid} | {entry.name} | {count} |" in page
