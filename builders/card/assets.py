"""What may lie beside a clone's manifest and goes into its card: contact sheets, and the summary of an audit."""

import json
from dataclasses import dataclass
from typing import Any

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.storage.base import Storage

AUDIT, AUDIT_PICTURES = "audit.json", "audit.parquet"
AUDIT_FORMAT = "fakeit-audit-1"
SHEETS = {
    "sheet.png": "Images of each class",
    "grid.png": "One class and seed over guidance scales and numbers of steps",
}
FIELDS = {"digest", "num_samples", "scorer", "note", "found", "classes", "groups"}
"""Of an audit's summary."""
CARD_ASSETS = (*SHEETS, AUDIT_PICTURES, AUDIT)


@dataclass(frozen=True, kw_only=True)
class CardAssets:
    sheets: tuple[tuple[str, str], ...] = ()
    """File names, and what they show."""
    audit: dict[str, Any] | None = None
    """Of this very clone: one of an earlier state is passed over."""


def read_card_assets(storage: Storage, manifest: Manifest) -> CardAssets:
    """What lies beside a clone."""
    there = card_asset_names(storage)
    try:
        audit = read_audit(storage) if AUDIT in there else None
    except UserError:  # of another version, or not ours
        audit = None
    return CardAssets(
        sheets=tuple((name, text) for name, text in SHEETS.items() if name in there),
        audit=audit if audit and audit["digest"] == manifest.digest else None,
    )


def read_audit(storage: Storage) -> dict[str, Any]:
    """An audit's summary.

    Raises:
        UserError: it is none.
    """
    try:
        found = json.loads(storage.read(AUDIT))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != AUDIT_FORMAT or not found.keys() >= FIELDS:
        raise UserError(f"'{storage.url(AUDIT)}' is no audit that this version reads; run 'fakeit-build audit' again")
    return found


def card_asset_names(storage: Storage) -> list[str]:
    """The files of `CARD_ASSETS` that are there."""
    return [name for name in CARD_ASSETS if storage.exists(name)]
