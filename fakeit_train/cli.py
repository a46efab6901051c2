"""fakeit-train: train a network on a clone. Also `python -m fakeit_train`, and under torchrun for several processes.

fakeit-train digits --data demo/digits --out demo/run
fakeit-train keys digits --data demo/digits --step 10
"""

import signal
import sys
from pathlib import Path
from typing import Annotated

import tyro

from builders.format.command import told_in_one_sentence

PROGRAM = "fakeit-train"
ConfigName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CONFIG")]
Settings = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="A.B=VALUE")]


def run(config: ConfigName, /, data: str, out: Path, settings: Settings = (), resume: bool = False) -> None:
    """Train a network on a clone and export it. `fakeit-train keys --help` is about looking at batches.

    Args:
        config: Name of a config in fakeit_train/configs, or a .py file with a CONFIG.
        data: Directory or URL of the clone.
        out: Directory of the run.
        settings: Settings to change, such as optim.learning_rate=0.2 num_epochs=3.
        resume: Go on with the run that is in --out.
    """
    from fakeit_train.config import load_config
    from fakeit_train.trainer import train

    outcome = train(load_config(config, list(settings)), data, out, resume=resume)
    if outcome.is_finished:
        print(f"{out}: trained {outcome.num_steps:,} steps; test it with 'fakeit-eval test {out} --data CLONE'")
    else:
        print(f"{out}: stopped after {outcome.step:,} of {outcome.num_steps:,} steps; add --resume to go on")
        if outcome.signal == signal.SIGINT:
            raise SystemExit(130)


def keys(config: ConfigName, /, data: str, step: int, num_steps: int = 1, settings: Settings = ()) -> None:
    """Print the sample keys of global batches, a line each: step, epoch, keys.

    Args:
        config: Name of a config in fakeit_train/configs, or a .py file with a CONFIG.
        data: Directory or URL of the clone.
        step: The first batch, counted from 0.
        num_steps: How many batches.
        settings: Settings that the run was made with.
    """
    from builders.format.errors import UserError
    from builders.format.open_clone import open_clone
    from fakeit_train.config import load_config
    from fakeit_train.data import make_order

    loaded = load_config(config, list(settings))
    clone = open_clone(data, loaded.data.cache)
    order = make_order(clone, loaded)
    total = loaded.num_epochs * order.batches_per_epoch
    if not 0 <= step < step + num_steps <= total:
        raise UserError(f"--step {step} --num-steps {num_steps} is not within the run's steps 0 to {total - 1}")
    for number in range(step, step + num_steps):
        batch = order.global_batch(number)
        print(number, batch[0][1], *(clone.key(sample) for sample, _ in batch))


def main() -> None:
    arguments = sys.argv[1:]
    with told_in_one_sentence(PROGRAM, "train"):
        if arguments[:1] == ["keys"]:
            tyro.cli(keys, prog=f"{PROGRAM} keys", args=arguments[1:], config=(tyro.conf.DisallowNone,))
        else:
            tyro.cli(run, prog=PROGRAM, args=arguments, config=(tyro.conf.DisallowNone,))


if __name__ == "__main__":
    main()
