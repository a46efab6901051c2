"""Contact sheets: a row per class, real images first, then a block per clone (Figs 6-13 of the paper)."""

from collections import defaultdict
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from builders.format.errors import UserError
from builders.format.images import decode_image
from builders.format.manifest import MANIFEST
from builders.format.open_clone import open_clone

Pictures = dict[str, list[Image.Image]]
"""Class id to its first pictures."""

GAP = 12
TILE = 48
"""Smallest side, in pixels, at which a picture is shown."""


def read_clone_pictures(root: str, num_per_class: int) -> Pictures:
    """The first pictures of every class of a clone; stops reading when all classes have enough."""
    clone = open_clone(root)
    names = clone.manifest.label_names
    pictures: Pictures = defaultdict(list)
    num_full = 0
    for sample in clone:
        row = pictures[names[sample.label]]
        if len(row) < num_per_class:
            row.append(Image.fromarray(decode_image(sample.picture)))
            num_full += len(row) == num_per_class
        if num_full == len(names):
            break
    return pictures


def read_folder_pictures(root: str, num_per_class: int) -> Pictures:
    """The first pictures of every class folder."""
    from builders.making.engines.folder import list_class_folders

    return {
        name: [Image.fromarray(decode_image(path.read_bytes())) for path in paths[:num_per_class]]
        for name, paths in list_class_folders(root).items()
    }


def read_pictures(root: str, num_per_class: int) -> Pictures:
    """Pictures of a clone, or of a directory of class folders."""
    if Path(root).is_dir() and not (Path(root) / MANIFEST).exists():
        return read_folder_pictures(root, num_per_class)
    return read_clone_pictures(root, num_per_class)


def draw_sheet(clones: list[str], real: str | None, num_per_class: int) -> Image.Image:
    """The sheet of the first clone's classes.

    Raises:
        UserError: no clone is given, or one cannot be opened.
    """
    if not clones:
        raise UserError("no clone to draw; give at least one")
    manifest = open_clone(clones[0]).manifest
    titles = {entry["wnid"]: entry["name"].split(", ")[0] for entry in manifest.recipe["classes"]}
    blocks = [("real", read_pictures(real, num_per_class))] if real else []
    blocks += [(_title(root), read_clone_pictures(root, num_per_class)) for root in clones]
    tile = max([TILE, *(picture.width for _, block in blocks for row in block.values() for picture in row)])
    return _compose(titles, blocks, num_per_class, tile)


def _title(root: str) -> str:
    recipe = open_clone(root).manifest.recipe
    if recipe["engine"] == "folder":
        return "real"
    return f'"{recipe["prompt"]}", guidance {recipe["guidance_scale"]:g}'


def _compose(titles: dict[str, str], blocks: list[tuple[str, Pictures]], num_per_class: int, tile: int) -> Image.Image:
    font = ImageFont.load_default(size=16)
    margin = 2 * GAP + max(int(font.getlength(title)) for title in titles.values())
    block_width = num_per_class * tile
    top = 3 * GAP
    width = margin + len(blocks) * (block_width + GAP)
    sheet = Image.new("RGB", (width, top + len(titles) * tile + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(blocks):
        left = margin + number * (block_width + GAP)
        draw.text((left, GAP // 2), title, fill="black", font=font)
        for row, wnid in enumerate(titles):
            for column, picture in enumerate(pictures.get(wnid, [])):
                sheet.paste(_fit(picture, tile), (left + column * tile, top + row * tile))
    for row, title in enumerate(titles.values()):
        draw.text((GAP, top + row * tile + (tile - 16) // 2), title, fill="black", font=font)
    return sheet


def _fit(picture: Image.Image, tile: int) -> Image.Image:
    """Scaled to fill the tile with a pixel to spare, its middle kept."""
    from PIL import ImageOps

    return ImageOps.fit(picture, (tile - 2, tile - 2), Image.Resampling.BICUBIC)
