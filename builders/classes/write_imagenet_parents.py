"""Writes imagenet_parents.tsv, and the list of classes with several parents in docs/hypernyms.md, from WordNet 3.0.

python -m builders.classes.write_imagenet_parents
"""

from pathlib import Path

from builders.classes.imagenet import PARENTS, timm_info
from builders.classes.wordnet import Synset, parent_lemmas, read_synset

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "hypernyms.md"

INTRODUCTION = """# Hypernyms of the ImageNet classes

`{{h_c}}` is the first lemma of a class's first parent in WordNet 3.0, in WordNet's own order: Shih-Tzu is a "toy dog", a
boathouse a "shed". The paper does not say which lemma and which parent it took; `--hypernym-lemmas all` takes all lemmas,
`--hypernym-parent 2` the second parent where there is one. These {count} of the 1,000 classes have several:

| class | | parents |
|---|---|---|
"""


def parents_table(synsets: list[Synset]) -> str:
    """Returns the content of imagenet_parents.tsv."""
    rows = ["wnid\tparents\tlemmas"]
    for synset in synsets:
        lemmas = "|".join(", ".join(names) for names in parent_lemmas(synset))
        rows.append(f"{synset.wnid}\t{'|'.join(synset.parents)}\t{lemmas}")
    return "\n".join(rows) + "\n"


def several_parents_page(synsets: list[Synset]) -> str:
    """Returns the content of docs/hypernyms.md."""
    several = [synset for synset in synsets if len(synset.parents) > 1]
    rows = [
        f"| {synset.wnid} | {synset.lemmas[0]} | {' · '.join(', '.join(names) for names in parent_lemmas(synset))} |"
        for synset in several
    ]
    return INTRODUCTION.format(count=len(several)) + "\n".join(rows) + "\n"


def main() -> None:
    synsets = [read_synset(wnid) for wnid in sorted(timm_info("imagenet_synsets.txt").read_text().split())]
    (HERE / PARENTS).write_text(parents_table(synsets), encoding="utf-8")
    DOCS.write_text(several_parents_page(synsets), encoding="utf-8")


if __name__ == "__main__":
    main()
