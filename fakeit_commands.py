"""Starts `fakeit-build`, `fakeit-train` and `fakeit-eval`, unless another package named `builders` hides ours.

The package index has such a package, and a folder of that name in the working directory hides ours, too. This module is
outside the packages, so that it can always be imported and report the conflict in one sentence.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path


def build() -> None:
    _start("fakeit-build", "builders.cli.main")


def train() -> None:
    _start("fakeit-train", "fakeit_train.cli")


def evaluate() -> None:
    _start("fakeit-eval", "fakeit_eval.cli.main")


def _start(program: str, module: str) -> None:
    if location := _foreign_builders():
        sys.stderr.write(
            f"{program}: the package 'builders' in '{location}' is not fakeit's, or overwrites it; if pip installed "
            "it, run 'pip uninstall builders' and install fakeit again, otherwise start in another directory\n"
        )
        raise SystemExit(2)
    importlib.import_module(module).main()


def _foreign_builders() -> str | None:
    """Returns the path of a package `builders` that is not ours, or that is mixed with ours; None if there is none."""
    spec = importlib.util.find_spec("builders")
    locations = [Path(location) for location in (spec and spec.submodule_search_locations) or []]
    if not spec:
        return None
    try:
        ours = importlib.util.find_spec("builders.versions")
    except Exception:
        # Another package may raise anything when it is imported.
        ours = None
    found = Path(ours.origin) if ours and ours.origin else None
    if not any(found and found.is_relative_to(location) for location in locations):
        return str(locations[0] if locations else spec.origin)
    try:
        other = Path(str(importlib.metadata.distribution("builders").locate_file("builders"))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
    return str(other) if other in [location.resolve() for location in locations] else None
