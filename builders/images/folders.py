"""Class folders, `<root>/<class>/…/<image>`: which files count as images, the same for every command.

Hidden files and what file managers leave behind (`.DS_Store`, `._0.jpg`, `Thumbs.db`) do not count as anything. What else has
no image's extension is left out, and named.
"""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from builders.errors import UserError

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic",
    ".heif", ".jp2",
)  # fmt: skip
LEFT_BEHIND = ("thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx")
"""Names that file managers and archivers leave, in lower case."""
MAX_NAMED = 5


@dataclass(frozen=True)
class ClassFolders:
    root: str
    images: dict[str, tuple[str, ...]]
    """For each class, by its folder's name in sorted order, its images' sorted paths below `root`."""
    others: tuple[str, ...]
    """Paths below `root` of files that are no images."""

    def path(self, name: str) -> str:
        """Where a file is, by its path below `root`."""
        return os.path.join(self.root, name)

    @property
    def note(self) -> str:
        """A sentence about `others`; "" without any."""
        if not self.others:
            return ""
        kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in self.others)
        counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in sorted(kinds, key=lambda kind: (-kinds[kind], kind)))
        shown = ", ".join(f"'{readable(name)}'" for name in self.others[:MAX_NAMED])
        more = ", …" if len(self.others) > MAX_NAMED else ""
        return f"{len(self.others):,} files in '{self.root}' are no images and are left out ({counts}): {shown}{more}"


def list_class_folders(root: str) -> ClassFolders:
    """The images of class folders; a class's images may lie in folders of its own.

    Raises:
        UserError: there is no such directory, it has no class folders, or one of them holds no image.
    """
    if not Path(root).is_dir():
        raise UserError(f"'{root}' is no directory; give a directory of class folders")
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and is_visible(entry.name))
    if not folders:
        raise UserError(f"'{root}' has no class folders; it should hold one folder of images for each class")
    images: dict[str, tuple[str, ...]] = {}
    others = sorted(entry.name for entry in os.scandir(root) if entry.is_file() and is_visible(entry.name))
    for folder in folders:
        found = _files_below(root, folder)
        name = readable(folder)
        if name in images:
            raise UserError(f"'{root}' has two class folders named '{name}'; rename one")
        images[name] = tuple(path for path in found if is_image(path))
        others += [path for path in found if not is_image(path)]
        if not images[name]:
            raise UserError(f"class folder '{os.path.join(root, name)}' holds no image; fill or remove it")
    return ClassFolders(root, images, tuple(others))


def is_image(name: str) -> bool:
    """Whether a file's name is an image's, hidden files left out."""
    base = name.rpartition("/")[2]
    return is_visible(base) and base.lower().endswith(EXTENSIONS)


def is_visible(name: str) -> bool:
    """Whether a file or folder was put there by a person."""
    return name[:1] != "." and name.lower() not in LEFT_BEHIND


def readable(name: str) -> str:
    """A file's name as text: composed (NFC), and read as Latin-1 where its bytes are not UTF-8."""
    content = os.fsencode(name)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return unicodedata.normalize("NFC", text)


def _files_below(root: str, folder: str) -> list[str]:
    """Visible files in a folder and below, as sorted paths below `root`; links to folders are followed, circles are not."""
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(os.path.join(root, folder), followlinks=True, onerror=_cannot_be_read):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(is_visible, folders))
        there = [os.path.join(parent, name) for name in files if is_visible(name)]
        found += [os.path.relpath(path, root) for path in there if not _is_special(path)]
    return sorted(found)


def _cannot_be_read(error: OSError) -> None:
    raise UserError(f"folder '{error.filename}' cannot be read ({error.strerror}); let it be read, or remove it")


def _is_special(path: str) -> bool:
    """Whether it is a pipe, a socket or a device, whose reading may never end; a link that leads nowhere is none."""
    return os.path.exists(path) and not os.path.isfile(path)
