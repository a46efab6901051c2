"""What may lie beside a clone's manifest and goes into its card: contact sheets, and the summary of an audit."""

import json
from dataclasses import dataclass
from typing import Any

from builders.format.errors import UserError
from builders.format.manifest import Manifest
from builders.format.storage import Storage

AUDIT, AUDIT_PICTURES = "audit.json", "audit.parquet"
AUDIT_FORMAT = "fakeit-audit-1"
SHEETS = {
    "sheet.png": "Images of each class",
    "grid.png": "One class and seed over guidance scales and numbers of steps",
}
FIELDS = {"digest", "num_samples", "scorer", "note", "found", "classes", "groups"}
"""Of an audit's summary."""
BESIDE = (*SHEETS, AUDIT_PICTURES, AUDIT)


@dataclass(frozen=True, kw_only=True)
class Beside:
    sheets: tuple[tuple[str, str], ...] = ()
    """File names, and what they show."""
    audit: dict[str, Any] | None = None
    """Of this very clone: one of an earlier state is passed over."""


def read_beside(storage: Storage, manifest: Manifest) -> Beside:
    """What lies beside a clone."""
    there = names_beside(storage)
    try:
        audit = read_audit(storage) if AUDIT in there else None
    except UserError:  # of another version, or not ours
        audit = None
    return Beside(
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


def names_beside(storage: Storage) -> list[str]:
    """The files of `BESIDE` that are there."""
    return [name for name in BESIDE if storage.exists(name)]
