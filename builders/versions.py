"""The name of this project on the package index, and the versions of installed packages.

The index has unrelated packages named `fakeit` and `builders`.
"""

from importlib.metadata import version

DISTRIBUTION = "fakeit-sd"


def versions(*packages: str) -> dict[str, str]:
    """Returns the installed versions of this project, under the key "fakeit", and of the named packages."""
    return {"fakeit": version(DISTRIBUTION), **{name: version(name) for name in packages}}
