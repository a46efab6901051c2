"""What every runner is: a module with `run(job)`, which makes the shards it is given, in any order, on some machines."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import builders.making.runners as runners_folder
from builders.format.errors import UserError, near
from builders.format.storage import Storage
from builders.making.engines.base import engine
from builders.making.plan import Plan
from builders.making.shard import make_shard


@dataclass(frozen=True)
class Job:
    plan: Plan
    out: str
    shards: list[int]
    num_workers: int = 1
    on_images: Callable[[int], object] = field(default=lambda num_images: None)
    """Called in the driving process with the number of images finished since the last call."""


class Runner(Protocol):
    def run(self, job: Job) -> None: ...


def runner(name: str) -> Runner:
    """The runner of that name: a module in this folder."""
    names = [module.name for module in pkgutil.iter_modules(runners_folder.__path__) if module.name != "base"]
    if name not in names:
        raise UserError(f"unknown runner '{name}'; {near(name, names)}")
    return cast(Runner, importlib.import_module(f"{runners_folder.__name__}.{name}"))


def work(plan: Plan, out: str, shard: int, on_images: Callable[[int], object]) -> None:
    """Makes one shard in this process; what a worker of any runner does."""
    recipe = plan.recipe
    painter = engine(recipe.engine)
    make_shard(plan, shard, painter.load(recipe), painter.environment(recipe), Storage(out), on_images)
