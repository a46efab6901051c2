"""Reads a configuration, and changes it by settings of the form `a.b=value`.

A config is a Python file that defines `CONFIG`, in `configs/` or elsewhere. Its docstring is its lab note.
"""

import copy
import dataclasses
import importlib
import importlib.util
import json
import re
import typing
from pathlib import Path
from typing import Any

from builders.errors import UserError, suggest
from builders.plugins import module_names
from fakeit_train.config import TrainConfig

UNQUOTED_COMMA = r"""(?:[^,'"]|'[^']*'|"[^"]*"|['"])+"""
"""Matches the text between two commas; commas within quotes do not separate."""


def config_names() -> list[str]:
    return module_names("fakeit_train.configs")


def load_config(name: str, settings: list[str]) -> TrainConfig:
    """Loads a config by name or from a .py file, and applies settings of the form `a.b=value`.

    Raises:
        UserError: the config or a setting does not exist, or a value has the wrong type.
    """
    if name.endswith(".py") and Path(name).is_file():
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the user's Python file may raise anything
            raise UserError(f"config '{name}' cannot be read ({type(error).__name__}: {error}); fix it") from None
    elif name in config_names():
        module = importlib.import_module(f"fakeit_train.configs.{name}")
    else:
        raise UserError(f"unknown config '{name}'; {suggest(name, config_names())}, or a .py file with a CONFIG")
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, TrainConfig):
        raise UserError(f"config '{name}' has no CONFIG of type TrainConfig; see fakeit_train/configs/digits.py")
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting} has no value; write --set {setting}=…")
        config = _replace(config, path.split("."), value, path)
    _check(config)
    return config


def _replace(value: Any, path: list[str], text: str, whole: str) -> Any:
    """Returns the value with the setting at `path` below it changed: of a dataclass, a tuple of them, or a dictionary."""
    name, *rest = path
    if isinstance(value, dict):
        # Options of a network; which ones there are, the network's library knows.
        return {**value, name: _replace(value.get(name, {}), rest, text, whole) if rest else _json(text)}
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        if not (name.isdecimal() and int(name) < len(value) and rest):
            raise UserError(
                f"unknown setting '{whole}'; number the items from 0 to {len(value) - 1} and name a field of one"
            )
        changed = _replace(value[int(name)], rest, text, whole)
        return (*value[: int(name)], changed, *value[int(name) + 1 :])
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise UserError(f"setting '{whole.removesuffix('.' + '.'.join(path))}' has no fields; set it directly")
    names = [f.name for f in dataclasses.fields(value)]
    if name not in names:
        raise UserError(f"unknown setting '{whole}'; {suggest(name, names)}")
    if rest:
        changed = _replace(getattr(value, name), rest, text, whole)
    else:
        changed = _parse(typing.get_type_hints(type(value))[name], text, whole)
    new = copy.copy(value)
    # Not `dataclasses.replace`, because a configuration may be valid only after all settings.
    object.__setattr__(new, name, changed)
    return new


def _check(value: Any) -> None:
    """Validates a configuration and the configurations in it."""
    if isinstance(value, tuple):
        for item in value:
            _check(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check(getattr(value, field.name))
        if hasattr(value, "__post_init__"):
            value.__post_init__()


def _json(text: str) -> Any:
    """Returns a JSON value, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parse(kind: Any, text: str, whole: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if typing.get_origin(kind) is dict and isinstance(found := json.loads(text), dict):
            return found
        if kind == tuple[str, ...]:
            return tuple(piece.strip() for piece in re.findall(UNQUOTED_COMMA, text) if piece.strip())
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is tuple and arguments[0] in (int, float):
            values = tuple(arguments[0](piece) for piece in text.split(","))
            if len(values) == len(arguments) or Ellipsis in arguments:
                return values
    except (ValueError, KeyError):
        pass
    name = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
    raise UserError(f"setting '{whole}' is '{text}', but must be of type {name}") from None
