"""The card of a repo that holds several clones, each a config in its own folder: combines the YAML of their cards."""

from typing import Any

import yaml

from builders.card.sections import split_card
from builders.errors import UserError


def render_collection(repo_id: str, cards: dict[str, str]) -> str:
    """Returns the README.md of the repo; `cards` are the clones' own cards, by config name."""
    metadata = {config: card_yaml(card, config) for config, card in sorted(cards.items())}
    first = next(iter(metadata.values()))
    licenses = sorted({str(found["license"]) for found in metadata.values()})
    merged = {
        "license": licenses[0] if len(licenses) == 1 else "other",
        "pretty_name": repo_id.rpartition("/")[2],
        "task_categories": first["task_categories"],
        "tags": sorted({tag for found in metadata.values() for tag in found["tags"]}),
        "configs": [_config(found, config) for config, found in metadata.items()],
        "dataset_info": [{**found["dataset_info"], "config_name": config} for config, found in metadata.items()],
    }
    header = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000).strip()
    rows = [
        f"| [{config}]({config}/README.md) | {found['pretty_name']} | {_count(found)} |"
        for config, found in metadata.items()
    ]
    lines = [
        f"---\n{header}\n---",
        f"# {repo_id.rpartition('/')[2]}",
        "Each clone has a card of its own. Images with the same key and seed in two clones start from the same noise.",
        "\n".join(["| config | recipe | images |", "|---|---|---|", *rows]),
        f'```python\nfrom datasets import load_dataset\n\nload_dataset("{repo_id}", "{next(iter(metadata))}")\n```',
    ]
    return "\n\n".join(lines) + "\n"


def card_yaml(card: str, where: str) -> dict[str, Any]:
    """Returns the YAML block of a clone's card.

    Raises:
        UserError: the card has no such block.
    """
    try:
        found, _ = split_card(card, where)
    except UserError:
        found = {}
    if not {"configs", "dataset_info", "license", "tags", "pretty_name"} <= found.keys():
        raise UserError(f"the card of '{where}' has no YAML block of a clone; write it again with 'fakeit-build card'")
    return found


def _config(found: dict[str, Any], config: str) -> dict[str, Any]:
    """Returns the clone's only config under another name, with its paths in the folder of that name."""
    files = [
        {**entry, "path": [f"{config}/{path}" for path in entry["path"]]} for entry in found["configs"][0]["data_files"]
    ]
    return {"config_name": config, "data_files": files}


def _count(found: dict[str, Any]) -> str:
    return f"{sum(split['num_examples'] for split in found['dataset_info']['splits']):,}"
