"""Renders the dataset card: a YAML block by which stock `datasets` finds the files, and a page for people.

Invariant: a card is a pure function of the plan and, once the clone is made, of its manifest and the files beside it.
"""

import csv
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from builders.card import measures
from builders.card.assets import CardAssets, read_card_assets
from builders.card.sections import CardText, merge_card, read_card, stale_keys, with_text
from builders.classes.scenes import scene_phrase
from builders.diffusion.adapters import UNKNOWN_LICENSE
from builders.engines.base import engine
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.names import CARD, PROMPTS
from builders.format.schema import card_features
from builders.planning.plan import Plan
from builders.planning.prompt_warnings import same_prompts
from builders.prompts.prompt_table import fetch_prompts, prompt_table
from builders.recipes.prompts import template_fields
from builders.recipes.recipe import Recipe, approximations, recipe_from_dict
from builders.recipes.sample import Sample
from builders.storage.base import Storage

CONFIG_NAME = "default"
NUM_EXAMPLES, NUM_PROMPTS = 6, 10
"""Number of images whose prompts the card shows, by one template and from a file."""
NUM_WORST = 10
"""Number of classes that the sections on an audit and on measures name."""
PAPER_MODEL = "CompVis/stable-diffusion-v1-4"
"""The model whose failures the paper lists."""


def card_metadata(recipe: Recipe, manifest: Manifest | None) -> dict[str, Any]:
    """Returns the YAML block. `version` follows the digest, because `datasets` caches a local clone by its card."""
    is_real = not engine(recipe.engine).IS_SYNTHETIC
    license_name = "other" if is_real else model_license(recipe.model)
    shards = [shard.name for shard in manifest.shards] if manifest else f"data/*/{recipe.split}-*.tar"
    info: dict[str, Any] = {
        "config_name": CONFIG_NAME,
        "features": card_features(recipe.image_format, recipe.label_names),
    }
    if manifest:
        split = {"name": manifest.split, "num_bytes": manifest.num_bytes, "num_examples": manifest.num_samples}
        info |= {"version": _version(manifest.digest), "splits": [split]}
        info |= {"download_size": manifest.num_bytes, "dataset_size": manifest.num_bytes}
    return {
        "license": license_name,
        "pretty_name": recipe.name,
        "task_categories": ["image-classification"],
        "tags": ["webdataset", "real" if is_real else "synthetic", "fakeit"],
        **({"size_categories": [_size_category(manifest.num_samples)]} if manifest else {}),
        "configs": [{"config_name": CONFIG_NAME, "data_files": [{"split": recipe.split, "path": shards}]}],
        "dataset_info": info,
        "fakeit": {"recipe_hash": recipe.hash, **({"digest": manifest.digest} if manifest else {})},
    }


def render_card(manifest: Manifest, recipe: Recipe, beside: CardAssets) -> str:
    """Returns the whole README.md of a clone."""
    return _render(Plan(recipe, manifest.num_rounds), manifest, beside)


def clone_card(storage: Storage, manifest: Manifest, text: CardText = CardText()) -> bytes:
    """Returns the README.md that a clone should have, with the files beside it and a user's edits in the existing card.

    Raises:
        UserError: the YAML of the existing card cannot be read.
    """
    card = fresh_card(storage, manifest)
    if storage.exists(CARD):
        card = merge_card(read_card(storage.read(CARD), storage.url(CARD)), card, storage.url(CARD))
    return with_text(card, text).encode()


def fresh_card(storage: Storage, manifest: Manifest) -> str:
    """Returns the README.md of a clone without anybody's edits."""
    recipe = recipe_from_dict(manifest.recipe)
    if not fetch_prompts(recipe.prompts, storage):
        raise UserError(f"'{storage.url(PROMPTS)}' is missing; restore it")
    return render_card(manifest, recipe, read_card_assets(storage, manifest))


def card_faults(storage: Storage, manifest: Manifest) -> list[str]:
    """Returns the YAML keys of a clone's card that disagree with its manifest, or why the card cannot be read."""
    try:
        card = read_card(storage.read(CARD), storage.url(CARD))
        return stale_keys(card, fresh_card(storage, manifest), storage.url(CARD))
    except UserError as error:
        return [str(error)]


def render_recipe_card(recipe: Recipe) -> str:
    """Returns the card of a recipe whose 1x clone is not made yet."""
    return _render(Plan(recipe, recipe.default_rounds), None, CardAssets())


def model_license(model: str) -> str:
    """Returns the license of a model by its name on the Hub; "other" for models that are not in `licenses.tsv`."""
    return {row["model"]: row["license"] for row in _table("licenses.tsv")}.get(model, UNKNOWN_LICENSE)


def known_failures(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Returns class id, first lemma and failure for a recipe's classes and prompt (paper, supplement, section 4)."""
    if recipe.model != PAPER_MODEL:
        return []
    names = {entry.wnid: entry.name.split(", ")[0] for entry in recipe.classes}
    fields = {"c", *template_fields(recipe.prompt)}
    rows = [row for row in _table("known_failures.tsv") if row["wnid"] in names and row["field"] in fields]
    return [(row["wnid"], names[row["wnid"]], row["failure"]) for row in rows]


def _render(plan: Plan, manifest: Manifest | None, beside: CardAssets) -> str:
    recipe = plan.recipe
    metadata = yaml.safe_dump(card_metadata(recipe, manifest), sort_keys=False, allow_unicode=True, width=1000)
    return _template().render(
        metadata=metadata.strip(),
        manifest=manifest,
        recipe=recipe,
        plan=plan,
        license_name=model_license(recipe.model),
        adapters=list(
            zip(recipe.adapters, recipe.adapter_licenses or [UNKNOWN_LICENSE] * len(recipe.adapters), strict=False)
        ),
        approximations=approximations(recipe),
        fields=template_fields(recipe.prompt),
        prompts=prompt_table(recipe.prompts).summary() if recipe.prompts else None,
        examples=list(_examples(plan)),
        scene_phrase=scene_phrase,
        counts=plan.class_counts().tolist(),
        verdicts=manifest.verdict_totals() if manifest else None,
        failures=known_failures(recipe),
        same_prompts=same_prompts(recipe) if engine(recipe.engine).IS_SYNTHETIC else [],
        is_synthetic=engine(recipe.engine).IS_SYNTHETIC,
        sheets=beside.sheets,
        audit=beside.audit,
        measures=_measures(beside.measures, recipe) if beside.measures else None,
        worst=_worst_classes(beside.audit) if beside.audit else [],
    )


def _worst_classes(audit: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the classes whose images the audit's scorer recognizes least often."""
    scored = [found for found in audit["classes"] if "share" in found]
    return sorted(scored, key=lambda found: (found["share"], found["wnid"]))[:NUM_WORST]


def _measures(found: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What the section on measures shows."""
    names = {entry.wnid: entry.name for entry in recipe.classes}
    return {
        "about": measures.about(found),
        "command": found["command"],
        "notes": found["notes"],
        "numbers": list(measures.number_rows(found)),
        "class_measures": [measures.title(name) for name in measures.class_measures(found)],
        "ranked_by": measures.title(found["ranking"]["measure"]),
        "worst": [(key, names.get(key, key), *rest) for key, *rest in measures.class_rows(found)][:NUM_WORST],
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("builders.card", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template("card_template.md")


def _examples(plan: Plan) -> Iterator[Sample]:
    """Returns the first image of each of some classes, spread over the list."""
    num_classes = len(plan.recipe.classes)
    num_examples = min(NUM_PROMPTS if plan.recipe.prompts else NUM_EXAMPLES, num_classes)
    counts = plan.class_counts()
    labels = [number * num_classes // num_examples for number in range(num_examples)]
    return (plan.sample(label, 0) for label in labels if counts[label])


@cache
def _table(name: str) -> list[dict[str, str]]:
    with (files("builders.card") / name).open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def _version(digest: str) -> str:
    """Returns "1.x.y" with x and y from the digest, so it differs whenever the bytes do."""
    return f"1.{int(digest[:7], 16)}.{int(digest[7:14], 16)}"


def _size_category(num_samples: int) -> str:
    names = ["1K", "10K", "100K", "1M", "10M", "100M"]
    if num_samples < 1000:
        return "n<1K"
    power = min(len(str(num_samples)) - 4, 4)
    return f"{names[power]}<n<{names[power + 1]}"
