"""The name that pip knows this project by; `fakeit` and `builders` are other people's packages on the index."""

from importlib.metadata import version

DISTRIBUTION = "fakeit-sd"


def installed_version() -> str:
    """The version of this project, which shards record under the key "fakeit"."""
    return version(DISTRIBUTION)
