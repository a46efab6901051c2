"""The name that pip knows this project by; `fakeit` and `builders` are other people's packages on the index."""

from importlib.metadata import version

DISTRIBUTION = "fakeit-sd"


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of this project, under the key "fakeit" whatever its distribution is called, and of packages."""
    return {"fakeit": version(DISTRIBUTION), **{name: version(name) for name in packages}}
