"""Class folders, `<root>/<class>/…/<image>`, and the rule for which files are images, the same for every command.

Hidden files and files that file managers leave behind (`.DS_Store`, `._0.jpg`, `Thumbs.db`) are ignored. Other files
without an image's extension are left out and reported.
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
"""Names of files and folders that file managers and archivers leave behind, in lower case."""
MAX_NAMED = 5


@dataclass(frozen=True)
class ClassFolders:
    root: str
    images: dict[str, tuple[str, ...]]
    """Sorted paths below `root` of each class's images. Classes are named by their folders, in sorted order."""
    others: tuple[str, ...]
    """Paths below `root` of files that are not images."""

    def path(self, name: str) -> str:
        """Returns the full path of a file with a path below `root`."""
        return os.path.join(self.root, name)

    @property
    def note(self) -> str:
        """A sentence that reports `others`; "" if there are none."""
        if not self.others:
            return ""
        kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in self.others)
        counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in sorted(kinds, key=lambda kind: (-kinds[kind], kind)))
        shown = ", ".join(f"'{readable(name)}'" for name in self.others[:MAX_NAMED])
        more = ", …" if len(self.others) > MAX_NAMED else ""
        return f"{len(self.others):,} files in '{self.root}' are not images and are left out ({counts}): {shown}{more}"


def list_class_folders(root: str) -> ClassFolders:
    """Lists the images of class folders; a class folder may have subfolders.

    Raises:
        UserError: the directory does not exist, has no class folders, or a class folder holds no image.
    """
    if not Path(root).is_dir():
        raise UserError(f"'{root}' is not a directory; give a directory of class folders")
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
            raise UserError(f"class folder '{os.path.join(root, name)}' holds no image; add images or remove it")
    return ClassFolders(root, images, tuple(others))


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; hidden files do not count."""
    base = name.rpartition("/")[2]
    return is_visible(base) and base.lower().endswith(EXTENSIONS)


def is_visible(name: str) -> bool:
    """Whether a file or folder is neither hidden nor left behind by a file manager."""
    return name[:1] != "." and name.lower() not in LEFT_BEHIND


def readable(name: str) -> str:
    """Returns a file's name as text: composed (NFC), and decoded as Latin-1 if its bytes are not UTF-8."""
    content = os.fsencode(name)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return unicodedata.normalize("NFC", text)


def _files_below(root: str, folder: str) -> list[str]:
    """Returns the sorted paths below `root` of the visible files in a folder and its subfolders.

    Links to folders are followed, but no folder is listed twice.
    """
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
    raise UserError(f"folder '{error.filename}' cannot be read ({error.strerror}); make it readable, or remove it")


def _is_special(path: str) -> bool:
    """Whether a path is a pipe, a socket or a device, which may never end when read. A broken link is not special."""
    return os.path.exists(path) and not os.path.isfile(path)
