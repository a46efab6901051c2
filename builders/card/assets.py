"""Files beside a clone's manifest that go into its card: contact sheets, the summary of an audit, and measures."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builders.card.measures import MEASURES, parse_measures
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.storage.base import Storage

AUDIT, AUDIT_IMAGES = "audit.json", "audit.parquet"
AUDIT_FORMAT = "fakeit-audit-1"
SHEETS = {
    "sheet.png": "Images of each class",
    "grid.png": "One class and seed over guidance scales and numbers of steps",
}
FIELDS = {"digest", "num_samples", "scorer", "note", "found", "classes", "groups"}
"""Keys that an audit's summary must have."""
CARD_ASSETS = (*SHEETS, AUDIT_IMAGES, AUDIT, MEASURES)


@dataclass(frozen=True, kw_only=True)
class CardAssets:
    sheets: tuple[tuple[str, str], ...] = ()
    """File name of each sheet, and what it shows."""
    audit: dict[str, Any] | None = None
    """Summary of an audit of exactly this clone; an audit of an earlier state is ignored."""
    measures: dict[str, Any] | None = None
    """What `fakeit-eval data` measured of exactly this clone; measures of an earlier state are ignored."""


def read_card_assets(storage: Storage, manifest: Manifest) -> CardAssets:
    """Reads the files beside a clone that go into its card."""
    there = card_asset_names(storage)
    audit = _ours(lambda: read_audit(storage)) if AUDIT in there else None
    measures = _ours(lambda: parse_measures(storage.read(MEASURES), MEASURES)) if MEASURES in there else None
    return CardAssets(
        sheets=tuple((name, text) for name, text in SHEETS.items() if name in there),
        audit=audit if audit and audit["digest"] == manifest.digest else None,
        measures=measures if measures and measures["data"]["digest"] == manifest.digest else None,
    )


def _ours(read: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """What a file holds; None if it is of another version, or not ours."""
    try:
        return read()
    except UserError:
        return None


def read_audit(storage: Storage) -> dict[str, Any]:
    """Reads the summary of an audit.

    Raises:
        UserError: there is no summary that this version can read.
    """
    try:
        found = json.loads(storage.read(AUDIT))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != AUDIT_FORMAT or not found.keys() >= FIELDS:
        raise UserError(
            f"'{storage.url(AUDIT)}' is not an audit that this version can read; run 'fakeit-build audit' again"
        )
    return found


def card_asset_names(storage: Storage) -> list[str]:
    """Returns the names in `CARD_ASSETS` of files that exist."""
    return [name for name in CARD_ASSETS if storage.exists(name)]
