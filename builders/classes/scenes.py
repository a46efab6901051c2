"""Scene categories of Places-365, the backgrounds b of the paper, as phrases for a prompt."""

from importlib.resources import files


def read_places365() -> tuple[str, ...]:
    """The 365 categories in the order of their ids, without the leading letter: "airfield", "desert/sand"."""
    lines = (files("builders.classes") / "places365_categories.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.split()[0][len("/a/") :] for line in lines)


def scene_phrase(category: str) -> str:
    """A category as it is said, its qualifier first: "desert/sand" is "sand desert"."""
    return " ".join(reversed(category.replace("_", " ").split("/")))
