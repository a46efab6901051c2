"""fakeit-build: make, check and show clones. Also `python -m builders`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from builders.cli import prompts as prompt_commands
from builders.cli.check import compare, redo, verify
from builders.cli.make import make, status
from builders.cli.publish import card, push
from builders.cli.recipes import list_, plan
from builders.cli.view import audit, gallery, grid, sheet
from builders.command_line.report_errors import report_errors

PROGRAM = "fakeit-build"
SKIP_BROKEN, DEFAULT_FRACTION = "--skip-broken", "0.01"

COMMANDS: dict[str, Callable[..., Any]] = {
    "list": list_,
    "plan": plan,
    "prompts": prompt_commands.prompts,
    "make": make,
    "status": status,
    "verify": verify,
    "card": card,
    "redo": redo,
    "push": push,
    "sheet": sheet,
    "grid": grid,
    "compare": compare,
    "gallery": gallery,
    "audit": audit,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, by default the process's own."""
    with report_errors(PROGRAM, "build"):
        arguments = _with_default_fraction(sys.argv[1:] if arguments is None else arguments)
        if arguments[:1] == ["prompts"] and len(arguments) > 1:
            prompt_commands.main(arguments[1:])
            return
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=__doc__, args=arguments, config=(tyro.conf.DisallowNone,)
        )


def _with_default_fraction(arguments: Sequence[str]) -> list[str]:
    """Adds the default to a `--skip-broken` without a value; tyro has no options with an optional value."""
    found: list[str] = []
    for word, after in zip(arguments, [*arguments[1:], "--"], strict=True):
        is_alone = word.replace("_", "-") == SKIP_BROKEN and not _is_number(after)
        found += [word, DEFAULT_FRACTION] if is_alone else [word]
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
