"""The scene categories of Places365, which are the backgrounds b in the paper, as phrases for a prompt."""

from importlib.resources import files


def read_places365() -> tuple[str, ...]:
    """Reads the 365 categories in the order of their ids, without the leading letter, such as "desert/sand"."""
    lines = (files("builders.classes") / "places365_categories.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.split()[0][len("/a/") :] for line in lines)


def scene_phrase(category: str) -> str:
    """Returns a category as a phrase, with its qualifier first: "desert/sand" becomes "sand desert"."""
    return " ".join(reversed(category.replace("_", " ").split("/")))
