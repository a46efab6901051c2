"""Writes a static site that shows a clone: no server, no requests to other hosts (Figs 6-13 of the paper).

fakeit-build gallery CLONE -o DIR          # then open DIR/index.html

    index.html  assets/        one page with its script and style sheet
    data/index.js              list of classes, settings of the sources, layout of the sprites
    data/audit.js              an audit's summary by class and by sibling classes; loaded when the audit page is opened
    data/measures.js           what fakeit-eval data measured of each class; loaded when the page of measures is opened
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
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageOps

from builders.card.measures import about, class_measures, class_rows, number_rows, title
from builders.command_line.progress import progress
from builders.errors import UserError
from builders.images.read import decode_sample
from builders.viewing.gallery_findings import (
    MEANINGS,
    NOTHING,
    Finding,
    Findings,
    check_real,
    merged,
    read_audit_findings,
    read_measures,
)
from builders.viewing.gallery_sources import COLUMNS_SHOWN, GalleryImage, Source, open_source

THUMBNAIL = 96
"""Side in pixels."""
PER_SPRITE, COLUMNS = 50, 10
IN_LIST = 6
"""Number of images of a class that the list of classes shows, per source."""
MAX_WORDS = 40
"""Number of words from a class's prompts that the search in the list of classes finds."""


def write_gallery(
    clone: str, out: Path, *, real: str = "", beside: str = "", audit: str = "", measures: str = "", per_class: int = 60
) -> Path:
    """Writes the site and returns the path of its index.html.

    Args:
        clone: Directory or URL of the clone.
        out: Folder of the site; it is new, empty, or an earlier gallery.
        real: Real images to show beside the clone: class folders or a clone.
        beside: Another clone to show beside it, matched by key, such as one with another guidance scale.
        audit: Folder of an audit of the clone; by default the audit inside the clone.
        measures: Result of `fakeit-eval data` on the clone; classes are then in its order, the worst first.
        per_class: Number of images on the page of a class, chosen by the hash of their keys. An audit and measures add up
            to as many images with findings.

    Raises:
        UserError: a clone cannot be opened, the audit belongs to another clone, or `out` holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / "data" / "index.js").exists():
        raise UserError(f"'{out}' is not empty and is no gallery; give -o another folder")
    sources = [Source(clone, "synthetic")]
    sources += [Source(beside, "beside")] if beside else []
    sources += [open_source(real, "real")] if real else []
    names = {entry["wnid"]: str(entry["name"]) for entry in sources[0].clone.manifest.recipe["classes"]}
    audited = read_audit_findings(sources[0].clone, audit)
    measured = read_measures(sources[0].clone, measures)
    if measured and real:
        check_real(measured, sources[-1].has)
    findings = {
        "synthetic": merged(*(found.by_class for found in (audited, measured) if found)),
        "real": measured.of_real if measured else {},
    }
    _copy_assets(out)
    entries = []
    with progress(len(sources[0].classes), unit="class", leave=False) as bar:
        for class_id in _order_of_classes(sources[0], measured):
            of_class = {title: found.get(class_id, {}) for title, found in findings.items()}
            entries.append(_write_class(class_id, names.get(class_id, class_id), sources, out, per_class, of_class))
            bar.update()
    index = {
        "sources": [{"title": source.title, "settings": source.settings, "root": source.root} for source in sources],
        "classes": entries,
        "thumbnail": THUMBNAIL,
        "columns": COLUMNS,
        "perSprite": PER_SPRITE,
        "measures": None,
        "audit": {name: audited.summary[name] for name in ("scorer", "note", "found")} if audited else None,
    }
    if measured:
        index["measures"] = _summary(measured.summary)
        _write_data(out / "data" / "measures.js", "measures", list(class_rows(measured.summary)))
    if audited:
        _write_data(out / "data" / "audit.js", "audit", {name: audited.summary[name] for name in ("classes", "groups")})
    _write_data(out / "data" / "index.js", "index", index)
    page = jinja2.Environment(autoescape=True).from_string(_asset("index.html.j2"))
    (out / "index.html").write_text(page.render(title=str(sources[0].settings["name"])), encoding="utf-8")
    return out / "index.html"


def _write_class(
    class_id: str,
    name: str,
    sources: Sequence[Source],
    out: Path,
    per_class: int,
    findings_of: dict[str, dict[str, Finding]],
) -> dict[str, Any]:
    """Writes sprites, images and metadata of a class; returns its entry in the list of classes.

    Args:
        findings_of: Findings about images of the class, by the title of a source, then by key.
    """
    listed: list[Image.Image] = []
    blocks, words = [], dict[str, None]()
    for source in sources:
        findings = findings_of.get(source.title, {})
        found = list(source.images(class_id, per_class, list(findings)[:per_class]))
        thumbnails = [GRAY if "broken" in findings.get(image.key, NOTHING)[0] else _thumbnail(image) for image in found]
        for number in range(0, len(thumbnails), PER_SPRITE):
            sprite = f"{source.title}-{number // PER_SPRITE}.webp"
            _save_sprite(thumbnails[number : number + PER_SPRITE], out / "sprites" / class_id / sprite)
        for image in found:
            file = f"{image.key.replace('/', '_')}.{image.extension}"
            _write_bytes(out / "images" / source.title / file, image.content)
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


def _order_of_classes(source: Source, measured: Findings | None) -> list[str]:
    """Class ids in the order of the clone; with measures those that these rank, the worst first, then the others."""
    ranked = measured.summary["ranking"]["classes"] if measured else []
    return list(dict.fromkeys([*(name for name in ranked if name in source.classes), *source.classes]))


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    """What the page of measures shows of the whole clone."""
    return {
        "about": about(found),
        "command": found["command"],
        "notes": found["notes"],
        "numbers": list(number_rows(found)),
        "columns": [title(name) for name in class_measures(found)],
        "rankedBy": title(found["ranking"]["measure"]),
        "kinds": MEANINGS,
    }


GRAY = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (128, 128, 128))
"""Thumbnail of an image that does not decode, and of an empty cell."""


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
