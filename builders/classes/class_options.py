"""A user's options for the classes of a recipe: where they are listed, how many images each has, which hypernyms."""

from dataclasses import dataclass

from builders.classes.class_list import ClassEntry
from builders.command_line.text_list import read_list
from builders.errors import UserError

LEMMA_CHOICES = ("first", "all")


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    source: str = ""
    """Class folders (real_images, custom_sd) or a text file of classes (custom_sd)."""
    counts: str = ""
    """File of lines "class id, count": the number of images of each class in the 1x clone."""
    hypernym_lemmas: str = "first"
    """Lemmas of the parent that make h_c: the first one, or all of them joined by ", "."""
    hypernym_parent: int = 1
    """Number of the parent that h_c is taken from, if WordNet gives several; a class with fewer takes its last one."""
    skip_broken: float = 0.0
    """Share of real images that may be left out because they cannot be read; 0 leaves out none."""

    def __post_init__(self) -> None:
        if self.hypernym_lemmas not in LEMMA_CHOICES:
            raise UserError(f"hypernym_lemmas is '{self.hypernym_lemmas}'; choose from {', '.join(LEMMA_CHOICES)}")
        if self.hypernym_parent < 1:
            raise UserError(f"hypernym_parent is {self.hypernym_parent}, but parents are numbered from 1")
        if not 0 <= self.skip_broken < 1:
            raise UserError(f"skip_broken is {self.skip_broken}, but must be a share from 0 to below 1, such as 0.01")

    def hypernym(self, parents: list[list[str]]) -> str:
        """Returns h_c of a class whose parents have these lemmas; "" if it has no parents."""
        if not parents:
            return ""
        lemmas = parents[min(self.hypernym_parent, len(parents)) - 1]
        return lemmas[0] if self.hypernym_lemmas == "first" else ", ".join(lemmas)


def with_counts(classes: tuple[ClassEntry, ...], path: str) -> tuple[ClassEntry, ...]:
    """Returns the classes with base counts from a file of lines "class id, count" (separated by comma, tab or space).

    Raises:
        UserError: the file cannot be read, names an unknown class, or leaves one out.
    """
    from dataclasses import replace

    counts = _read_counts(path)
    known = {entry.wnid for entry in classes}
    for wnid in counts:
        if wnid not in known:
            raise UserError(f"'{path}' counts class '{wnid}', which the recipe does not have; remove that line")
    for entry in classes:
        if entry.wnid not in counts:
            raise UserError(
                f"'{path}' has no count for class '{entry.wnid}'; give every class a line 'class id, count'"
            )
    return tuple(replace(entry, base_count=counts[entry.wnid]) for entry in classes)


def _read_counts(path: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in read_list(path, "a line 'class id, count' for each class"):
        try:
            wnid, count = line.text.replace(",", " ").split()
            number_of = int(count)
        except ValueError:
            raise UserError(f"'{path}', line {line.number}: '{line.text}' is not 'class id, count'") from None
        if wnid in counts:
            raise UserError(f"'{path}', line {line.number}: class '{wnid}' is counted twice")
        if number_of < 1:
            raise UserError(f"'{path}', line {line.number}: class '{wnid}' has {count} images; give it 1 or more")
        counts[wnid] = number_of
    return counts
