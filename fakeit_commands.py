"""Starts `fakeit-build`, `fakeit-train` and `fakeit-eval`, unless another package named `builders` hides ours.

The index has such a package, and a folder of that name in the working directory hides ours, too. So what runs first lies
outside the packages, and says so in one sentence.
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
    if place := _foreign_builders():
        sys.stderr.write(
            f"{program}: the package 'builders' in '{place}' is not fakeit's, or lies over it; if pip installed it, run "
            "'pip uninstall builders' and install fakeit again, or else start elsewhere\n"
        )
        raise SystemExit(2)
    importlib.import_module(module).main()


def _foreign_builders() -> str | None:
    """Where Python finds a package `builders` that is not ours alone."""
    spec = importlib.util.find_spec("builders")
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or []]
    if not spec:
        return None
    try:
        ours = importlib.util.find_spec("builders.versions")
    except Exception:  # whatever another package does when it is imported
        ours = None
    found = Path(ours.origin) if ours and ours.origin else None
    if not any(found and found.is_relative_to(place) for place in places):
        return str(places[0] if places else spec.origin)
    try:
        other = Path(str(importlib.metadata.distribution("builders").locate_file("builders"))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
    return str(other) if other in [place.resolve() for place in places] else None
