"""Starts `fakeit-build`, `fakeit-train` and `fakeit-eval`, unless another package named `builders` hides ours.

The index has such a package, and a folder of that name in the working directory hides ours, too. So what runs first lies
outside the packages, and says so in one sentence.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

OURS = "format/distribution.py"


def build() -> None:
    _start("fakeit-build", "builders.cli")


def train() -> None:
    _start("fakeit-train", "fakeit_train.cli")


def evaluate() -> None:
    _start("fakeit-eval", "fakeit_eval.cli")


def _start(program: str, module: str) -> None:
    spec = importlib.util.find_spec("builders")
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or []]
    if spec and not any((place / OURS).is_file() for place in places):
        sys.stderr.write(
            f"{program}: the package 'builders' in '{places[0] if places else spec.origin}' is not fakeit's, and hides it; "
            "if pip installed it, run 'pip uninstall builders' and install fakeit again, or else start elsewhere\n"
        )
        raise SystemExit(2)
    importlib.import_module(module).main()
