"""Finds plug-ins: a file in a folder of plug-ins, or an entry point of another package.

    [project.entry-points."fakeit.engines"]
    my_engine = "my_package.my_engine"

The name of a plug-in is its file's name, or its entry point's. Kinds are builders, engines and runners.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from builders.errors import UserError, missing_extra, suggest

FOLDERS = {"builders": "builders", "engines": "builders.engines", "runners": "builders.runners"}
NOT_PLUGINS = ("base", "worker")
"""Modules in folders of plug-ins that the plug-ins stand on."""


def module_names(package: str) -> list[str]:
    """The plug-ins in a folder, which is named as a package, such as "fakeit_eval.probes"."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    files = [module.name for module in modules if not module.ispkg]
    return sorted(name for name in files if name not in NOT_PLUGINS and not name.startswith("_"))


@cache
def plugin_names(kind: str) -> tuple[str, ...]:
    """The names that `find_plugin` knows."""
    return tuple(sorted({*module_names(FOLDERS[kind]), *_added(kind)}))


def find_plugin(kind: str, name: str) -> ModuleType:
    """The module of a plug-in.

    Raises:
        UserError: there is none of that name, or what it stands on is not installed.
    """
    names = plugin_names(kind)
    if name not in names:
        raise UserError(f"unknown {kind.removesuffix('s')} '{name}'; {suggest(name, [*names])}")
    try:
        return importlib.import_module(_added(kind).get(name, f"{FOLDERS[kind]}.{name}"))
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or name, "build") from None


@cache
def _added(kind: str) -> dict[str, str]:
    """The plug-ins of other packages: name to module."""
    return {point.name: point.value for point in entry_points(group=f"fakeit.{kind}")}
