"""Sets up WordNet 3.0 for nltk: Debian's files, and the list of lexicographer files, which Debian leaves out."""

from pathlib import Path

DEBIAN = Path("/usr/share/wordnet")
FILES = ("index", "data")
SPLITS = ("adj", "adv", "noun", "verb")
LEXNAMES = """
adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state
noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption
verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative
verb.weather adj.ppl
"""
NUMBERS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def write_nltk_data(out: Path) -> None:
    """Writes an nltk data directory with `corpora/wordnet`. The sense keys are not used, and left empty."""
    folder = out / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    names = [f"{kind}.{piece}" for kind in FILES for piece in SPLITS] + [f"{piece}.exc" for piece in SPLITS]
    for name in [*names, "cntlist.rev"]:
        # A copy, since nltk rejects links that lead out of its directory.
        (folder / name).write_bytes((DEBIAN / name).read_bytes())
    rows = [f"{number:02d}\t{name}\t{NUMBERS[name.split('.')[0]]}" for number, name in enumerate(LEXNAMES.split())]
    (folder / "lexnames").write_text("\n".join(rows) + "\n")
    (folder / "index.sense").touch()
