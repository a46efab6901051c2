"""The command fakeit-train, which trains a network on one or more clones.

It also runs as `python -m fakeit_train`, and under torchrun on several GPUs.

fakeit-train digits --data demo/digits --out demo/run
fakeit-train digits --data demo/real demo/digits --weights 1,3 --val demo/real-test --out demo/mixed
fakeit-train keys digits --data demo/digits --step 10
fakeit-train push demo/run user/name
"""

import contextlib
import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from builders.command_line.report_errors import report_errors
from builders.errors import UserError

PROGRAM = "fakeit-train"
Clones = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLONE …")]
ConfigName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG")]
Settings = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="A.B=VALUE …")]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Data settings that have command-line options of their own."""

    weights: Annotated[str, tyro.conf.arg(metavar="W,W,…")] = ""
    """Relative weights of the clones in every batch, such as 1,3; without weights the clones form one sequence."""
    scale: float = 0.0
    """Train on the prefix of each clone that 'fakeit-build make --scale' would have generated; 0 for whole clones."""
    exclude: str = ""
    """File with the keys of samples to leave out, one key per line."""
    where: str = ""
    """Conditions on metadata, such as 'nsfw != 1', separated by commas."""

    def settings(self) -> list[str]:
        """Returns the choices that were given, in the form of `--set` settings."""
        return [f"data.{name}={value}" for name, value in vars(self).items() if value]


def run(
    config: ConfigName,
    /,
    data: Clones,
    out: Path,
    choices: Annotated[Choices, tyro.conf.arg(name="")] = Choices(),
    init: str = "",
    val: str = "",
    settings: Settings = (),
    resume: bool = False,
) -> None:
    """Train a network on clones and export its weights. 'fakeit-train keys' prints the samples of a batch, and
    'fakeit-train push' pushes a trained network to the Hub.

    Args:
        config: Name of a config in fakeit_train/configs, or a .py file that defines CONFIG.
        data: Folders or URLs of the clones.
        out: Folder of the run.
        init: Initial weights: torchvision, timm, the folder of a run, or a file with a state dict.
        val: Images for validation after each epoch: a clone, class folders, an archive or hub:user/name@split.
        settings: Settings to change, such as optim.learning_rate=0.2 num_epochs=3.
        resume: Continue the run in --out.
    """
    from fakeit_train.settings import load_config
    from fakeit_train.trainer import train

    named = [f"{name}={value}" for name, value in (("init", init), ("validation.data", val)) if value]
    loaded = load_config(config, [*choices.settings(), *named, *settings])
    outcome = train(loaded, _given(data), out, resume=resume)
    if outcome.num_broken:
        print(f"{outcome.num_broken:,} broken images were left out (data.keep_broken=true keeps them)")
    if outcome.is_finished:
        print(f"{out}: trained for {outcome.num_steps:,} steps; test it with 'fakeit-eval test {out} --data CLONE'")
    else:
        print(f"{out}: stopped after {outcome.step:,} of {outcome.num_steps:,} steps; add --resume to continue")
        if outcome.signal == signal.SIGINT:
            raise SystemExit(130)


def _given(data: tuple[str, ...]) -> list[str]:
    if not data:
        raise UserError("no clone to train on; give --data CLONE")
    return list(data)


def keys(
    config: ConfigName,
    /,
    data: Clones,
    step: int,
    num_steps: int = 1,
    choices: Annotated[Choices, tyro.conf.arg(name="")] = Choices(),
    settings: Settings = (),
) -> None:
    """Print the sample keys of global batches, one line per batch: step, epoch, keys.

    Args:
        config: Name of a config in fakeit_train/configs, or a .py file that defines CONFIG.
        data: Folders or URLs of the run's clones, in the same order.
        step: First batch, counted from 0.
        num_steps: Number of batches.
        settings: Settings of the run.
    """
    from fakeit_train.data.mixture import open_mixture
    from fakeit_train.objectives.base import traits_of
    from fakeit_train.settings import load_config

    loaded = load_config(config, [*choices.settings(), *settings])
    mixture = open_mixture(_given(data), loaded.data)
    order = mixture.order(loaded.data, deals_siblings=traits_of(loaded.objective).deals_siblings)
    total = loaded.num_epochs * order.batches_per_epoch
    if not 0 <= step < step + num_steps <= total:
        raise UserError(f"--step {step} --num-steps {num_steps} is outside the run's steps 0 to {total - 1}")
    for number in range(step, step + num_steps):
        batch = order.global_batch(number)
        print(number, number // order.batches_per_epoch, *(mixture.key(sample) for sample, _ in batch))


def push(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    repo: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="USER/NAME")],
    /,
    private: bool = False,
) -> None:
    """Push the network of a finished run to the Hub, with a model card; timm then loads it by one line.

    Args:
        run: Folder of the run; RUN/best for the network that was the best in validation.
        repo: Name of the model on the Hub; the repo is created if it does not exist.
        private: Whether a new repo is private.
    """
    from fakeit_train.push_model import push_model

    print(push_model(run, repo, private=private))
    print(f'timm.create_model("hf-hub:{repo}", pretrained=True)')


COMMANDS: dict[str, Callable[..., None]] = {"keys": keys, "push": push}
"""Commands beside training, which has no name of its own."""


def settings_help(config: str) -> str:
    """Returns a page with all settings of a config and their values."""
    from fakeit_train.config import TrainConfig
    from fakeit_train.settings import load_config

    content = io.BytesIO()
    text = io.TextIOWrapper(content, encoding=sys.stdout.encoding)
    loaded = load_config(config, [])
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        switches = (tyro.conf.FlagConversionOff,)
        tyro.cli(TrainConfig, default=loaded, args=["--help"], use_underscores=True, config=switches)
    text.flush()
    page = content.getvalue().decode(sys.stdout.encoding)
    # The page is one of options, and settings have no dashes.
    shown = re.sub(r"(?m)^.*-h, --help.*\n.*\n", "", page[page.index("\n\n") + 2 :])
    shown = re.sub(r"(?m)^(\W )--", r"\1  ", re.sub(r" options (\W)", r" \1\1\1\1\1\1\1\1\1", shown))
    return f"Settings of '{config}', for --set NAME=VALUE:\n\n{shown}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, by default that of the process."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with report_errors(PROGRAM, "train"):
        if arguments and (command := COMMANDS.get(arguments[0])):
            tyro.cli(command, prog=f"{PROGRAM} {arguments[0]}", args=arguments[1:], config=(tyro.conf.DisallowNone,))
        else:
            try:
                tyro.cli(run, prog=PROGRAM, args=arguments, config=(tyro.conf.DisallowNone,))
            except SystemExit:
                if {"-h", "--help"} & set(arguments) and not arguments[0].startswith("-"):
                    print(settings_help(arguments[0]))
                raise


if __name__ == "__main__":
    main()
