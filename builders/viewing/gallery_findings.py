"""What a gallery shows beside images: findings of an audit, and of `fakeit-eval data`, by class and key."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.card.assets import AUDIT, AUDIT_IMAGES, read_audit
from builders.card.measures import check_measured, parse_measures
from builders.errors import UserError
from builders.format.open_clone import Clone
from builders.storage.base import open_storage

Finding = tuple[list[str], str]
"""Kinds of findings about an image, and the message that describes them."""
NOTHING: Finding = ([], "")
FAR, COPY, UNCOVERED = "far", "copy", "uncovered"
"""Kinds of findings by `fakeit-eval data`."""
MEANINGS = {
    FAR: "outside of the manifold of the real images, the farthest of its class",
    COPY: "nearer to a real image than real ones are to each other",
    UNCOVERED: "a real image without a synthetic one nearby, the farthest of its class",
}
PER_CLASS = 12
"""Images of a class that are shown as far, and as uncovered."""


@dataclass(frozen=True)
class Findings:
    summary: dict[str, Any]
    """The audit's summary, or the result of `fakeit-eval data`."""
    by_class: dict[str, dict[str, Finding]]
    """Findings about images of the clone by class id, then by key; the most important first."""
    of_real: dict[str, dict[str, Finding]]
    """Findings about the real images beside it."""


def read_audit_findings(clone: Clone, folder: str) -> Findings | None:
    """Reads the audit in `folder`, or else the audit inside the clone.

    Returns None if no folder is given and the clone holds no audit, or only one of an earlier state of the clone.

    Raises:
        UserError: the audit in `folder` cannot be read, or belongs to another clone.
    """
    storage = open_storage(folder) if folder else clone.storage
    if not folder and not storage.exists(AUDIT):
        return None
    summary = read_audit(storage)
    if summary["digest"] != clone.manifest.digest:
        if folder:
            raise UserError(
                f"the audit in '{folder}' belongs to another clone than '{clone.root}'; run the audit again"
            )
        return None
    with storage.open(AUDIT_IMAGES) as file:
        table = pq.read_table(file)
    table = table.filter(pc.greater(pc.list_value_length(table["findings"]), 0))
    names, findings = clone.manifest.label_names, dict[str, dict[str, Finding]]()
    for row in table.to_pylist():
        details = {"label": f"looks like {names[row.get('predicted', -1)]}", "duplicate": f"of {row['duplicate_of']}"}
        message = ", ".join(f"{kind} ({details[kind]})" if kind in details else kind for kind in row["findings"])
        findings.setdefault(names[row["label"]], {})[row["key"]] = (row["findings"], message)
    return Findings(summary, findings, {})


def read_measures(clone: Clone, path: str) -> Findings | None:
    """Reads a result of `fakeit-eval data`, and the Parquet file beside it; None without a path.

    Raises:
        UserError: a file cannot be read, or belongs to another clone.
    """
    if not path:
        return None
    try:
        found = parse_measures(Path(path).read_bytes(), path)
        table = pq.read_table(Path(path).with_suffix(".parquet"))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"'{path}' or its .parquet cannot be read ({error}); run 'fakeit-eval data' again") from None
    check_measured(found, clone.manifest.digest, clone.root, path)
    synthetic, real = (table.filter(pc.equal(table["set"], name)) for name in ("synthetic", "real"))
    copies = _by_class(synthetic.filter(pc.fill_null(synthetic["is_copy"], False)), COPY, nearest_first=True)
    far = _by_class(synthetic.filter(pc.equal(synthetic["in_manifold"], False)), FAR)
    uncovered = _by_class(real.filter(pc.equal(real["is_covered"], False)), UNCOVERED)
    return Findings(found, merged(copies, far), uncovered)


def check_real(measured: Findings, has: Callable[[str], bool]) -> None:
    """Checks that the real images of a gallery are those that were measured.

    Args:
        has: Whether the gallery's real images have one with a key.

    Raises:
        UserError: they are others.
    """
    first = next((key for images in measured.of_real.values() for key in images), None)
    if first is not None and not has(first):
        name = measured.summary["settings"]["real"]["name"]
        raise UserError(f"the real images have no '{first}', which was measured; give --real the images of '{name}'")


def merged(*found: dict[str, dict[str, Finding]]) -> dict[str, dict[str, Finding]]:
    """Findings about the same images from several sources, by class id, then by key."""
    result: dict[str, dict[str, Finding]] = {}
    for findings in found:
        for class_id, images in findings.items():
            known = result.setdefault(class_id, {})
            for key, (kinds, message) in images.items():
                others, text = known.get(key, NOTHING)
                known[key] = ([*others, *kinds], f"{text}, {message}" if text else message)
    return result


def _by_class(table: pa.Table, kind: str, *, nearest_first: bool = False) -> dict[str, dict[str, Finding]]:
    """The first images of each class in the order of their distance."""
    found: dict[str, dict[str, Finding]] = {}
    for row in table.sort_by([("distance", "ascending" if nearest_first else "descending")]).to_pylist():
        images = found.setdefault(row["class"], {})
        if len(images) < PER_CLASS:
            beside = f" ({row['nearest']})" if row["nearest"] else ""
            images[row["key"]] = (
                [kind],
                f"{kind}: {row['distance']:.3g} from the nearest image of the other set{beside}",
            )
    return found
