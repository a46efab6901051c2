"""The dataset card: YAML that tells stock `datasets` what is where, and a page for people.

Invariant: a card is a pure function of the manifest and the recipe.
"""

from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from builders.format.manifest import Manifest
from builders.format.schema import card_features
from builders.making.plan import Plan
from builders.making.recipe import Recipe

CONFIG_NAME = "default"


def card_metadata(manifest: Manifest, recipe: Recipe) -> dict[str, Any]:
    """The YAML block. `version` follows the digest, for `datasets` caches a local clone by what its card says."""
    return {
        "license": "other",
        "task_categories": ["image-classification"],
        "tags": ["webdataset", "synthetic" if recipe.engine != "folder" else "real", "fakeit"],
        "size_categories": [_size_category(manifest.num_samples)],
        "configs": [
            {
                "config_name": CONFIG_NAME,
                "data_files": [{"split": manifest.split, "path": [shard.name for shard in manifest.shards]}],
            }
        ],
        "dataset_info": {
            "config_name": CONFIG_NAME,
            "version": _version(manifest.digest),
            "features": card_features(manifest.image_format, manifest.label_names),
            "splits": [{"name": manifest.split, "num_bytes": manifest.num_bytes, "num_examples": manifest.num_samples}],
            "download_size": manifest.num_bytes,
            "dataset_size": manifest.num_bytes,
        },
        "fakeit": {"recipe_hash": manifest.recipe_hash, "digest": manifest.digest},
    }


def render_card(manifest: Manifest, recipe: Recipe) -> str:
    """The whole README.md of a clone."""
    environment = Environment(
        loader=PackageLoader("builders.publishing", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plan = Plan(recipe, manifest.num_rounds)
    return environment.get_template("card_template.md").render(
        metadata=yaml.safe_dump(
            card_metadata(manifest, recipe), sort_keys=False, allow_unicode=True, width=1000
        ).strip(),
        manifest=manifest,
        recipe=recipe,
        examples=[plan.sample(label, 0) for label in range(min(5, len(recipe.classes)))],
        counts=plan.class_counts().tolist(),
        environments=manifest.environments,
    )


def _version(digest: str) -> str:
    """ "1.x.y" with x and y from the digest: it differs wherever the bytes do."""
    return f"1.{int(digest[:7], 16)}.{int(digest[7:14], 16)}"


def _size_category(num_samples: int) -> str:
    names = ["1K", "10K", "100K", "1M", "10M", "100M"]
    if num_samples < 1000:
        return "n<1K"
    power = min(len(str(num_samples)) - 4, 4)
    return f"{names[power]}<n<{names[power + 1]}"
