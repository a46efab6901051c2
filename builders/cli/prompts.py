"""`fakeit-build prompts`: writes files of prompts for --prompts, and checks them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from builders.cli.options import Options, RecipeName, RecipeOptions
from builders.command_line.progress import progress
from builders.errors import UserError

PromptFile = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
KEY_VARIABLE = "OPENAI_API_KEY"


def prompts() -> None:
    """Write a file of prompts for --prompts (prompts make), or check one (prompts lint)."""
    main(["--help"])


def make_prompts(
    recipe: RecipeName,
    /,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    per_class: int = 50,
    llm: str = "",
    endpoint: str = "",
    tries: int = 3,
    concurrency: int = 8,
    max_requests: int = 0,
    key_env: str = KEY_VARIABLE,
    llm_revision: str = "",
    llm_batch_size: int = 8,
    options: Options = RecipeOptions(),
) -> None:
    """Write captions of a recipe's classes to a file: by a language model, or composed of short lists without one. Run again,
    it continues.

    Args:
        recipe: builder/config, or a recipe file such as a clone.json.
        output: File to write: .csv, .jsonl or .parquet. Beside it come FILE.json with how it was made, and the answers.
        per_class: Number of captions of each class.
        llm: Causal language model of transformers: an id on the Hub or a directory; with --endpoint, the model's name there.
        endpoint: URL of an OpenAI-style server up to /v1, without /chat/completions.
        tries: How many requests for a class may fall short before composed captions fill in.
        concurrency: Number of requests to the endpoint at a time.
        max_requests: Stop asking the endpoint after this many requests, retries included; 0 for no limit.
        key_env: Environment variable with the endpoint's key.
        llm_revision: Branch, tag or commit of --llm on the Hub.
        llm_batch_size: Number of requests that --llm answers at a time on this machine.
    """
    from builders.prompt_writing.write_prompts import check_output, write_prompts

    for name, value, least in (("per-class", per_class, 1), ("tries", tries, 1), ("concurrency", concurrency, 1),
                               ("max-requests", max_requests, 0), ("llm-batch-size", llm_batch_size, 1)):  # fmt: skip
        if value < least:
            raise UserError(f"--{name} is {value}, but must be at least {least}")
    check_output(output)
    found = options.plan(recipe).recipe
    author: Any = None
    if endpoint:
        from builders.prompt_writing.endpoint import Endpoint

        author = Endpoint(endpoint, llm, key_env, concurrency, max_requests)
    elif llm:
        from builders.prompt_writing.causal_model import CausalModel

        author = CausalModel(llm, llm_revision, llm_batch_size)
    with progress(per_class * len(found.classes), unit="caption") as bar:
        written = write_prompts(found, output, per_class, author, tries=tries, on_captions=bar.update)
    print(
        f"{output}: {written.num_rows:,} captions of {len(found.classes):,} classes, {written.num_composed:,} composed"
    )
    if written.num_short:
        print(f"  {written.num_short:,} classes have fewer than {per_class}, for there are no more compositions")
    if written.note:
        print(f"  {written.note}")
    print(f"  fakeit-build make {recipe} OUT --prompts {output}")


def lint_prompts(file: PromptFile, recipe: RecipeName, /, options: Options = RecipeOptions()) -> None:
    """Check a file of prompts for a recipe. Prints a line per fault; exit status 1 if any.

    Args:
        file: File, URL or pattern, as for --prompts.
        recipe: builder/config, or a recipe file such as a clone.json.
    """
    from builders.prompt_writing.lint import lint

    faults = lint(options.plan(recipe).recipe, file)
    for fault in faults:
        print(fault)
    if faults:
        num_fatal = sum(fault.is_fatal for fault in faults)
        print(f"{file}: {len(faults):,} faults, {num_fatal:,} of which keep a clone from being made")
        raise SystemExit(1)
    print(f"{file}: no faults")


COMMANDS: dict[str, Callable[..., Any]] = {"make": make_prompts, "lint": lint_prompts}


def main(arguments: Sequence[str]) -> None:
    """Runs `fakeit-build prompts`."""
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="fakeit-build prompts", description=__doc__, args=arguments, config=(tyro.conf.DisallowNone,)
    )
