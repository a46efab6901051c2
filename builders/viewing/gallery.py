"""Writes a static site that shows a clone: no server, no requests to other hosts (Figs 6-13 of the paper).

fakeit-build gallery CLONE -o DIR          # then open DIR/index.html

    index.html  assets/        one page with its script and style sheet
    data/index.js              list of classes, settings of the sources, layout of the sprites
    data/audit.js              an audit's summary by class and by sibling classes; loaded when the audit page is opened
    data/classes/<class>.js    metadata of a class's images; loaded when the class is opened
    sprites/<class>/list.webp  the few thumbnails of a class that the list of classes shows
    sprites/<class>/…-<n>.webp all thumbnails of a class, 50 per file
    images/…                   the image files as they are in the clone

Data files are scripts, because a page that is opened from a disk may not fetch files. The page inserts the strings of
a clone as text, never as markup.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from builders.card.assets import AUDIT, AUDIT_IMAGES, read_audit
from builders.command_line.progress import progress
from builders.errors import UserError
from builders.format.open_clone import Clone
from builders.images.read import decode_sample
from builders.storage.base import open_storage
from builders.viewing.gallery_sources import COLUMNS_SHOWN, GalleryImage, Source, open_source

THUMBNAIL = 96
"""Side in pixels."""
PER_SPRITE, COLUMNS = 50, 10
IN_LIST = 6
"""Number of images of a class that the list of classes shows, per source."""
MAX_WORDS = 40
"""Number of words from a class's prompts that the search in the list of classes finds."""


def write_gallery(
    clone: str, out: Path, *, real: str = "", beside: str = "", audit: str = "", per_class: int = 60
) -> Path:
    """Writes the site and returns the path of its index.html.

    Args:
        clone: Directory or URL of the clone.
        out: Folder of the site; it is new, empty, or an earlier gallery.
        real: Real images to show beside the clone: class folders or a clone.
        beside: Another clone to show beside it, matched by key, such as one with another guidance scale.
        audit: Folder of an audit of the clone; by default the audit inside the clone.
        per_class: Number of images on the page of a class, chosen by the hash of their keys. An audit adds up to as
            many images with findings.

    Raises:
        UserError: a clone cannot be opened, the audit belongs to another clone, or `out` holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / "data" / "index.js").exists():
        raise UserError(f"'{out}' is not empty and is no gallery; give -o another folder")
    sources = [Source(clone, "synthetic")]
    sources += [Source(beside, "beside")] if beside else []
    sources += [open_source(real, "real")] if real else []
    names = {entry["wnid"]: str(entry["name"]) for entry in sources[0].clone.manifest.recipe["classes"]}
    audited = _read_audit(sources[0].clone, audit)
    _copy_assets(out)
    entries = []
    with progress(len(sources[0].classes), unit="class", leave=False) as bar:
        for class_id in sources[0].classes:
            entries.append(_write_class(class_id, names.get(class_id, class_id), sources, out, per_class, audited))
            bar.update()
    index = {
        "sources": [{"title": source.title, "settings": source.settings, "root": source.root} for source in sources],
        "classes": entries,
        "thumbnail": THUMBNAIL,
        "columns": COLUMNS,
        "perSprite": PER_SPRITE,
        "audit": {name: audited.summary[name] for name in ("scorer", "note", "found")} if audited else None,
    }
    if audited:
        _write_data(out / "data" / "audit.js", "audit", {name: audited.summary[name] for name in ("classes", "groups")})
    _write_data(out / "data" / "index.js", "index", index)
    page = jinja2.Environment(autoescape=True).from_string(_asset("index.html.j2"))
    (out / "index.html").write_text(page.render(title=str(sources[0].settings["name"])), encoding="utf-8")
    return out / "index.html"


def _write_class(
    class_id: str, name: str, sources: Sequence[Source], out: Path, per_class: int, audited: "_Audited | None"
) -> dict[str, Any]:
    """Writes sprites, images and metadata of a class; returns its entry in the list of classes."""
    listed: list[Image.Image] = []
    blocks, words = [], dict[str, None]()
    for source in sources:
        findings = audited.findings.get(class_id, {}) if audited and source is sources[0] else {}
        found = list(source.images(class_id, per_class, list(findings)[:per_class]))
        thumbnails = [GRAY if "broken" in findings.get(image.key, NOTHING)[0] else _thumbnail(image) for image in found]
        for number in range(0, len(thumbnails), PER_SPRITE):
            sprite = f"{source.title}-{number // PER_SPRITE}.webp"
            _save_sprite(thumbnails[number : number + PER_SPRITE], out / "sprites" / class_id / sprite)
        for image in found:
            _write_bytes(out / "images" / source.title / f"{image.key}.{image.extension}", image.content)
        listed += _padded(thumbnails[:IN_LIST])
        for image in found:
            words.update(dict.fromkeys(str(image.about.get("prompt", "")).lower().replace(",", " ").split()))
        blocks.append({
            "title": source.title,
            "rows": [
                [
                    image.key,
                    image.extension,
                    *(image.about.get(column) for column in COLUMNS_SHOWN),
                    *findings.get(image.key, NOTHING),
                ]
                for image in found
            ],
        })  # fmt: skip
    _save_sprite(listed, out / "sprites" / class_id / "list.webp", columns=IN_LIST * len(sources))
    _write_data(
        out / "data" / "classes" / f"{class_id}.js",
        "receive",
        {"id": class_id, "columns": (*COLUMNS_SHOWN, "findings", "audit"), "parts": blocks},
    )
    counts = [source.classes.get(class_id, 0) for source in sources]
    return {"id": class_id, "name": name, "counts": counts, "words": " ".join(list(words)[:MAX_WORDS])}


Finding = tuple[list[str], str]
"""Kinds of findings about an image, and the message that describes them."""
NOTHING: Finding = ([], "")
GRAY = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (128, 128, 128))
"""Thumbnail of an image that does not decode, and of an empty cell."""


@dataclass(frozen=True)
class _Audited:
    summary: dict[str, Any]
    findings: dict[str, dict[str, Finding]]
    """Findings by class id, then by key."""


def _read_audit(clone: Clone, folder: str) -> _Audited | None:
    """Reads the audit in `folder`, or else the audit inside the clone.

    Returns None if no folder is given and the clone holds no audit, or only one of an earlier state of the clone.
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
    return _Audited(summary, findings)


def _thumbnail(image: GalleryImage) -> Image.Image:
    pixels = decode_sample(image.key, image.content)
    return ImageOps.fit(Image.fromarray(pixels), (THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)


def _padded(thumbnails: list[Image.Image]) -> list[Image.Image]:
    return thumbnails + [GRAY] * (IN_LIST - len(thumbnails))


def _save_sprite(thumbnails: Sequence[Image.Image], path: Path, columns: int = COLUMNS) -> None:
    rows = -(-len(thumbnails) // columns)
    sprite = Image.new("RGB", (min(columns, len(thumbnails)) * THUMBNAIL, rows * THUMBNAIL))
    for number, thumbnail in enumerate(thumbnails):
        sprite.paste(thumbnail, (number % columns * THUMBNAIL, number // columns * THUMBNAIL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sprite.save(path, "WEBP", quality=75)


def _write_data(path: Path, call: str, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"gallery.{call}({json.dumps(content, separators=(',', ':'))});\n", encoding="ascii")


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _asset(name: str) -> str:
    return (files("builders.viewing") / "gallery_site" / name).read_text(encoding="utf-8")


def _copy_assets(out: Path) -> None:
    (out / "assets").mkdir(parents=True, exist_ok=True)
    for name in ("gallery.js", "gallery.css"):
        with as_file(files("builders.viewing") / "gallery_site" / name) as source:
            shutil.copy(source, out / "assets" / name)
