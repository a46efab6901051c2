"""Draws contact sheets: a row per class; real images first, then a block per clone (Figs 6-13 of the paper)."""

from collections.abc import Collection
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from builders.classes.class_ids import class_ids
from builders.errors import UserError, suggest
from builders.format.names import MANIFEST
from builders.format.open_clone import open_clone
from builders.images.folders import list_class_folders
from builders.images.read import decode_sample, read_image

ClassImages = dict[str, list[Image.Image]]
"""First images of each class id."""

GAP = 12
TILE = 48
"""Smallest side, in pixels, at which an image is shown."""
MAX_TILE = 128
"""Largest side, in pixels, at which an image is shown."""


def read_clone_images(root: str, num_per_class: int, classes: Collection[str]) -> ClassImages:
    """Returns the first images of the given classes of a clone. Stops reading once every class has enough."""
    clone = open_clone(root)
    names = clone.manifest.label_names
    images: ClassImages = {name: [] for name in classes if name in names}
    missing = set(images)
    for shard, start in enumerate(clone.shard_starts[:-1]):
        for row, label in enumerate(clone.shard_index(shard)["label"]):
            if names[label] in missing:
                found = images[names[label]]
                found.append(Image.fromarray(decode_sample(clone.key(start + row), clone[start + row].image)))
                if len(found) == num_per_class:
                    missing.remove(names[label])
        if not missing:
            break
    return images


def read_folder_images(root: str, num_per_class: int, classes: Collection[str]) -> ClassImages:
    """Returns the first images of the given class folders."""
    folders = list_class_folders(root)
    return {
        identity: [_read_file(folders.path(path)) for path in folders.images[name][:num_per_class]]
        for name, identity in class_ids(folders.images).items()
        if identity in classes
    }


def _read_file(path: str) -> Image.Image:
    try:
        return Image.fromarray(read_image(Path(path).read_bytes()).pixels)
    except (ValueError, OSError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); repair or remove it") from None


def read_images(root: str, num_per_class: int, classes: Collection[str]) -> ClassImages:
    """Returns the first images of the given classes, from a clone or from a directory of class folders."""
    if Path(root).is_dir() and not (Path(root) / MANIFEST).exists():
        return read_folder_images(root, num_per_class, classes)
    return read_clone_images(root, num_per_class, classes)


def draw_sheet(clones: list[str], real: str | None, num_per_class: int, classes: list[str]) -> Image.Image:
    """Draws the sheet for the classes of the first clone, or for those that `classes` names by id or first lemma.

    Raises:
        UserError: no clone is given, one cannot be opened, or the first has no such class.
    """
    if not clones:
        raise UserError("no clone to draw; give at least one")
    manifest = open_clone(clones[0]).manifest
    titles = _choose({entry["wnid"]: entry["name"].split(", ")[0] for entry in manifest.recipe["classes"]}, classes)
    blocks = [("real", read_images(real, num_per_class, titles))] if real else []
    blocks += [(_title(root), read_clone_images(root, num_per_class, titles)) for root in clones]
    widest = max((image.width for _, block in blocks for row in block.values() for image in row), default=TILE)
    tile = min(max(TILE, widest), MAX_TILE)
    return _compose(titles, blocks, num_per_class, tile)


def _choose(titles: dict[str, str], classes: list[str]) -> dict[str, str]:
    ids = {**{title: wnid for wnid, title in titles.items()}, **{wnid: wnid for wnid in titles}}
    for name in classes:
        if name not in ids:
            raise UserError(f"the clone has no class '{name}'; {suggest(name, list(ids))}")
    return {ids[name]: titles[ids[name]] for name in classes} if classes else titles


def _title(root: str) -> str:
    manifest = open_clone(root).manifest
    recipe = manifest.recipe
    if not manifest.is_synthetic:
        return "real"
    prompt = f'"{recipe["prompt"]}"' if recipe["prompt"] else f"prompts of {recipe['prompts_source']}"
    return f"{prompt}, guidance {recipe['guidance_scale']:g}"


def _compose(
    titles: dict[str, str], blocks: list[tuple[str, ClassImages]], num_per_class: int, tile: int
) -> Image.Image:
    font = ImageFont.load_default(size=16)
    margin = 2 * GAP + max(int(font.getlength(title)) for title in titles.values())
    block_width = num_per_class * tile
    top = 3 * GAP
    width = margin + len(blocks) * (block_width + GAP)
    sheet = Image.new("RGB", (width, top + len(titles) * tile + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, images) in enumerate(blocks):
        left = margin + number * (block_width + GAP)
        draw.text((left, GAP // 2), title, fill="black", font=font)
        for row, wnid in enumerate(titles):
            for column, image in enumerate(images.get(wnid, [])):
                sheet.paste(_fit(image, tile), (left + column * tile, top + row * tile))
    for row, title in enumerate(titles.values()):
        draw.text((GAP, top + row * tile + (tile - 16) // 2), title, fill="black", font=font)
    return sheet


def _fit(image: Image.Image, tile: int) -> Image.Image:
    """Scales and center-crops an image to the tile less two pixels, which separate it from its neighbors."""
    from PIL import ImageOps

    return ImageOps.fit(image, (tile - 2, tile - 2), Image.Resampling.BICUBIC)
