"""Finds plug-ins: modules in the plug-in folders of this package, and entry points of other packages.

    [project.entry-points."fakeit.engines"]
    my_engine = "my_package.my_engine"

The name of a plug-in is the name of its file or its entry point. There are four kinds: builders, engines, runners and checks.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from builders.errors import UserError, missing_extra, suggest

FOLDERS = {
    "builders": "builders",
    "engines": "builders.engines",
    "runners": "builders.runners",
    "checks": "builders.checks",
}
NOT_PLUGINS = ("base", "worker")
"""Modules in plug-in folders that plug-ins use, and that are not plug-ins themselves."""


def module_names(package: str) -> list[str]:
    """Returns the names of the plug-ins in a package, such as "fakeit_eval.probes"."""
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    files = [module.name for module in modules if not module.ispkg]
    return sorted(name for name in files if name not in NOT_PLUGINS and not name.startswith("_"))


@cache
def plugin_names(kind: str) -> tuple[str, ...]:
    """Returns all plug-in names of a kind, which `find_plugin` accepts."""
    return tuple(sorted({*module_names(FOLDERS[kind]), *_external_plugins(kind)}))


def find_plugin(kind: str, name: str) -> ModuleType:
    """Imports and returns the module of a plug-in.

    Raises:
        UserError: there is no plug-in of that name, or a package that it needs is not installed.
    """
    names = plugin_names(kind)
    if name not in names:
        raise UserError(f"unknown {kind.removesuffix('s')} '{name}'; {suggest(name, [*names])}")
    try:
        return importlib.import_module(_external_plugins(kind).get(name, f"{FOLDERS[kind]}.{name}"))
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or name, "build") from None


@cache
def _external_plugins(kind: str) -> dict[str, str]:
    """Returns the plug-ins of other packages: names and their modules."""
    return {point.name: point.value for point in entry_points(group=f"fakeit.{kind}")}
