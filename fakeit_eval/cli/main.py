"""fakeit-eval: measure what a trained backbone has learned, and what a clone is worth. Also `python -m fakeit_eval`.

Features, searches and results are cached: the same command again reads them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tyro

from builders.command_line.report_errors import report_errors
from fakeit_eval.cli.evaluate import analyze, data, probe, suite, test
from fakeit_eval.cli.study import report, study
from fakeit_eval.ranks import joined

PROGRAM = "fakeit-eval"

COMMANDS: dict[str, Callable[..., Any]] = {
    "test": test,
    "probe": probe,
    "analyze": analyze,
    "data": data,
    "suite": suite,
    "study": study,
    "report": report,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, by default the process's own."""
    with report_errors(PROGRAM, "eval"), joined():
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog=PROGRAM, description=__doc__, args=arguments, config=(tyro.conf.DisallowNone,)
        )


if __name__ == "__main__":
    main()
