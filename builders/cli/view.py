"""`fakeit-build sheet`, `grid`, `gallery` and `audit`: look at the images of a clone, and look for faulty ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from builders.cli.options import ClonePath, Options, RecipeName, RecipeOptions
from builders.cli.publish import show_in_card
from builders.command_line.progress import progress
from builders.errors import UserError
from builders.format.manifest import read_manifest
from builders.format.names import CARD
from builders.storage.base import open_storage

if TYPE_CHECKING:
    from builders.audit.findings import Audit as AuditResult


def sheet(
    clones: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="CLONE")],
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sheet.png"),
    real: str | None = None,
    classes: tuple[str, ...] = (),
    per_class: int = 8,
    card: str = "",
) -> None:
    """Draw a contact sheet: a row per class, a block of images per clone, real ones first.

    Args:
        clones: Directories or URLs of clones with the same classes.
        output: PNG file to write.
        real: A clone of real images, or a directory of class folders.
        classes: Show only these classes, by class id or first lemma.
        per_class: Images per class in each block.
        card: A clone whose card shows the sheet, too.
    """
    from builders.viewing.sheet import draw_sheet

    if per_class < 1 or output.suffix != ".png":
        raise UserError(f"--per-class {per_class} -o {output} cannot be drawn; give 1 or more, and a .png")
    _check_clone(card)
    draw_sheet(list(clones), real, per_class, list(classes)).save(output)
    print(output)
    show_in_card(card, "sheet.png", output)


def grid(
    recipe: RecipeName,
    class_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CLASS")],
    /,
    options: Options = RecipeOptions(),
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("grid.png"),
    guidance: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0),
    steps: tuple[int, ...] = (5, 10, 25, 50),
    image_seed: int = 1947262,
    card: str = "",
) -> None:
    """Draw one class at one seed over guidance scales and step counts, as Fig. 5 of the paper does.

    Args:
        recipe: builder/config, or a recipe file such as a clone's clone.json.
        class_id: Class id, such as n01558993.
        output: PNG file to write.
        guidance: Guidance scales, a column each.
        steps: Step counts, a row each.
        image_seed: Seed of the image, the same in every cell.
        card: A clone whose card shows the grid, too.
    """
    from builders.engines.base import pin_model
    from builders.viewing.grid import draw_grid

    if output.suffix != ".png":
        raise UserError(f"-o {output} is no .png; give one")
    _check_clone(card)
    draw_grid(pin_model(options.plan(recipe).recipe), class_id, image_seed, guidance, steps).save(output)
    print(output)
    show_in_card(card, "grid.png", output)


def gallery(
    clone: ClonePath,
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("gallery"),
    real: str = "",
    beside: str = "",
    audit: str = "",
    measures: str = "",
    per_class: int = 60,
) -> None:
    """Write a static website that shows a clone: every class, search, filters, each image with its metadata.

    Args:
        clone: Directory or URL of the clone.
        output: Folder of the site; open its index.html, or put it on any web server.
        real: Real images to show beside it: a directory of class folders, or a clone.
        beside: Another clone to show beside it, matched by key, such as one with another guidance scale.
        audit: Folder of an audit of the clone; by default the audit inside the clone.
        measures: A result of `fakeit-eval data` on the clone: the worst classes come first, images far from any real one and
            real ones that nothing covers are marked.
        per_class: Number of images on the page of a class.
    """
    from builders.viewing.gallery import write_gallery

    if per_class < 1:
        raise UserError(f"--per-class {per_class} shows nothing; give 1 or more")
    print(write_gallery(clone, output, real=real, beside=beside, audit=audit, measures=measures, per_class=per_class))


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    clip: str = ""
    """Hub id or directory of an image-text model of transformers (CLIP, SigLIP, …), such as openai/clip-vit-base-patch32."""
    revision: str = ""
    """Commit of that model on the Hub."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])] = ""
    """Folder for audit.json and audit.parquet; by default the clone itself, whose card gets a section."""
    write_exclude: Path | None = None
    """File for the keys of the images that were found, for fakeit-train --exclude."""
    exclude: tuple[str, ...] = ()
    """Kinds of findings that go into that file; by default broken, blank, duplicate, nsfw and label."""
    batch_size: int = 64
    """Images per forward of the model."""
    workers: int = os.cpu_count() or 1
    """Threads that decode images."""


Audit = Annotated[AuditOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="audit")]


def audit(clone: ClonePath, /, options: Audit = AuditOptions()) -> None:
    """Look for faulty images: broken, blank, duplicate, flagged; with --clip also wrong labels, other senses of a name,
    backgrounds that hide the object, images that are no photographs. Deletes nothing.

    Args:
        clone: Directory or URL of the clone.
    """
    from builders.audit.audit import audit_clone
    from builders.audit.findings import check_kinds
    from builders.card.render import clone_card
    from builders.networks.clip import ClipEmbedder

    storage, target = open_storage(clone), open_storage(options.output or clone)
    manifest = read_manifest(storage)
    if not options.output and not storage.is_local:
        raise UserError(f"'{clone}' is not on this machine; give -o a folder for the audit")
    if options.batch_size < 1 or options.workers < 1:
        raise UserError(
            f"--batch-size {options.batch_size} --workers {options.workers} look at nothing; give 1 or more of both"
        )
    if options.revision and not options.clip:
        raise UserError(f"--revision {options.revision} belongs to a model; give --clip one")
    check_kinds(options.exclude, has_embedder=bool(options.clip))
    embedder = ClipEmbedder(options.clip, options.revision) if options.clip else None
    with progress(manifest.num_samples) as bar:
        found = audit_clone(
            clone, embedder, batch_size=options.batch_size, num_threads=options.workers, on_images=bar.update
        )
    found.write(target)
    if not options.output:
        storage.write(CARD, clone_card(storage, manifest))
    _print_audit(found.summary(), manifest.num_samples, has_embedder=bool(options.clip))
    print(f"{target.url('audit.json')}")
    if options.write_exclude:
        _write_exclude(clone, found, options)


def _print_audit(summary: dict[str, Any], num_samples: int, *, has_embedder: bool) -> None:
    from builders.audit.findings import KINDS

    for kind, count in summary["found"].items():
        print(f"{kind:11}{count:>10,}  {count / num_samples:>7.2%}  {KINDS[kind]}")
    if not has_embedder:
        print("labels, senses, backgrounds and media were not checked: give --clip a model")
    elif summary["note"]:
        print(summary["note"])


def _write_exclude(clone: str, found: "AuditResult", options: AuditOptions) -> None:
    from builders.audit.findings import SKIPPED

    path, summary = options.write_exclude, found.summary()
    assert path
    keys = found.keys(options.exclude or [kind for kind in SKIPPED if kind in summary["found"]])
    path.write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
    print(f"{path}: {len(keys):,} keys; fakeit-train CONFIG --data {clone} --exclude {path}")


def _check_clone(clone: str) -> None:
    """Checks, before anything is drawn, that a clone exists; "" passes."""
    if clone:
        read_manifest(open_storage(clone))
