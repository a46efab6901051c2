"""fakeit-train: train a network on a clone. Also `python -m fakeit_train`, and under torchrun for several processes.

fakeit-train digits --data demo/digits --out demo/run
fakeit-train digits --data demo/real demo/digits --weights 1,3 --val demo/real-test --out demo/mixed
fakeit-train keys digits --data demo/digits --step 10
"""

import signal
import sys
from collections.abc import Sequence
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
    """Settings that have an option of their own."""

    weights: Annotated[str, tyro.conf.arg(metavar="W,W,…")] = ""
    """Share of each clone in every batch, such as 1,3; without it the clones are one sequence."""
    scale: float = 0.0
    """Train on the prefix of each clone that 'fakeit-build make --scale' would have made; 0 for all of it."""
    exclude: str = ""
    """File with the keys of samples to leave out, one a line."""
    where: str = ""
    """Conditions on metadata, such as 'nsfw != 1', with commas between them."""

    def settings(self) -> list[str]:
        """As --set would have them; those that were not given are left out."""
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
    """Train a network on clones and export it. `fakeit-train keys --help` is about looking at batches.

    Args:
        config: Name of a config in fakeit_train/configs, or a .py file with a CONFIG.
        data: Directories or URLs of the clones.
        out: Directory of the run.
        init: Weights to begin with: torchvision, timm, a run, or a file with a state dict.
        val: Clone to test on after each epoch.
        settings: Settings to change, such as optim.learning_rate=0.2 num_epochs=3.
        resume: Go on with the run that is in --out.
    """
    from fakeit_train.config import load_config
    from fakeit_train.trainer import train

    named = [f"{name}={value}" for name, value in (("init", init), ("validation.data", val)) if value]
    loaded = load_config(config, [*choices.settings(), *named, *settings])
    outcome = train(loaded, _given(data), out, resume=resume)
    if outcome.num_broken:
        print(f"{outcome.num_broken:,} images that came out broken were left out (data.keep_broken=true takes them)")
    if outcome.is_finished:
        print(f"{out}: trained {outcome.num_steps:,} steps; test it with 'fakeit-eval test {out} --data CLONE'")
    else:
        print(f"{out}: stopped after {outcome.step:,} of {outcome.num_steps:,} steps; add --resume to go on")
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
    """Print the sample keys of global batches, a line each: step, epoch, keys.

    Args:
        config: Name of a config in fakeit_train/configs, or a .py file with a CONFIG.
        data: Directories or URLs of the clones, as the run had them.
        step: The first batch, counted from 0.
        num_steps: How many batches.
        settings: Settings that the run was made with.
    """
    from fakeit_train.config import load_config
    from fakeit_train.data.mixture import open_mixture

    loaded = load_config(config, [*choices.settings(), *settings])
    mixture = open_mixture(_given(data), loaded.data)
    order = mixture.order(loaded.data)
    total = loaded.num_epochs * order.batches_per_epoch
    if not 0 <= step < step + num_steps <= total:
        raise UserError(f"--step {step} --num-steps {num_steps} is not within the run's steps 0 to {total - 1}")
    for number in range(step, step + num_steps):
        batch = order.global_batch(number)
        print(number, number // order.batches_per_epoch, *(mixture.key(sample) for sample, _ in batch))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, by default the process's own."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with report_errors(PROGRAM, "train"):
        if arguments[:1] == ["keys"]:
            tyro.cli(keys, prog=f"{PROGRAM} keys", args=arguments[1:], config=(tyro.conf.DisallowNone,))
        else:
            tyro.cli(run, prog=PROGRAM, args=arguments, config=(tyro.conf.DisallowNone,))


if __name__ == "__main__":
    main()
