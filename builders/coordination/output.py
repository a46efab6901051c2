"""Reads the state of an output: which files it has before, during and after a run.

Invariant: an output holds one recipe. Files that do not belong to a clone are never touched.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from builders.errors import UserError
from builders.format.manifest import Manifest, ShardEntry, parse_manifest
from builders.format.names import MAKING, MANIFEST, TARGET, staged_prompts
from builders.generation.generate_shard import sidecar_name
from builders.planning.plan import Plan
from builders.prompts.prompt_table import prompt_file_of
from builders.recipes.recipe import Recipe, recipe_from_dict
from builders.storage.base import Storage

FINALIZING = f"{MAKING}/finalising.json"
"""File with the number of rounds that `finalize` works on. Until it has ended, no other number is started."""
OLD_TARGET = f"{MAKING}/target.json"
"""Name of the target in outputs that were begun before it was moved to the folder that runs list."""
OLD_MANIFEST = f"{MAKING}/{MANIFEST}"
"""Temporary name of a growing clone's manifest while `finalize` runs."""
MAX_SHOWN = 4
"""Maximum number of differing fields of another recipe that a message shows."""


@dataclass(frozen=True)
class State:
    """The state of an output at one moment."""

    storage: Storage
    old: Manifest | None
    """Manifest of the clone that already exists here. It was finished earlier and may be shorter."""
    is_readable: bool
    """Whether that clone is complete: its manifest has the name that readers use."""
    target: dict[str, Any] | None
    """{"recipe": …, "recipe_hash": …, "num_rounds": …} of what is being made; None if nothing is."""
    finalizing: int | None
    """Number of rounds whose files `finalize` is moving to their final names; None if it is not running."""

    @cached_property
    def is_begun(self) -> bool:
        """Whether some shard is finished. Before that, another recipe may replace the target."""
        names = self.storage.names(MAKING) if self.target and self.old is None else []
        return self.old is not None or any(name.endswith(".parquet") for name in names)

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of this output; None if it is empty."""
        fields = self.target["recipe"] if self.target else self.old.recipe if self.old else None
        return recipe_from_dict(fields) if fields else None

    def plan(self) -> Plan | None:
        """Returns the plan that is being made here, or was made; None for an empty output."""
        recipe = self.recipe
        if recipe is None:
            return None
        return Plan(recipe, self.target["num_rounds"] if self.target else self.old.num_rounds if self.old else 0)

    def is_complete(self, plan: Plan) -> bool:
        """Whether the plan's clone is complete here. Shards of a longer clone may still be in `_making`."""
        is_here = self.old is not None and self.is_readable and self.finalizing is None
        return is_here and self.old is not None and self.old.num_rounds == plan.num_rounds

    def is_last(self, plan: Plan) -> bool:
        """Whether the target, if there is one, is exactly this plan. Otherwise a longer clone is being made here."""
        target = self.target or {"recipe_hash": plan.recipe.hash, "num_rounds": plan.num_rounds}
        return (target["recipe_hash"], target["num_rounds"]) == (plan.recipe.hash, plan.num_rounds)

    def kept(self, plan: Plan) -> list[ShardEntry]:
        """Returns the existing shards that a longer plan keeps: all, except a last shard that was cut short."""
        if self.old is None:
            return []
        entries, last = self.old.shards, len(self.old.shards) - 1
        is_same = Plan(plan.recipe, self.old.num_rounds).shard_end(last) == plan.shard_end(last)
        return entries if is_same else entries[:-1]

    def check(self, plan: Plan) -> None:
        """Checks that a plan may be made here.

        Raises:
            UserError: the output holds another recipe, a longer clone, files that do not belong to a clone, or images of a
                generator that was fitted on other real images.
        """
        root = self.storage.root
        recipe = self.recipe if self.is_begun else None
        if recipe is not None:
            _check_same_recipe(plan.recipe, recipe, root)
        if self.old and self.old.num_rounds > plan.num_rounds:
            raise UserError(
                f"'{root}' already holds {self.old.num_rounds} rounds ({self.old.num_samples} images), more than the "
                f"{plan.num_rounds} requested; choose another output for a smaller clone"
            )
        hashes = {self.old.recipe_hash} if self.old else set()
        hashes |= {self.target["recipe_hash"]} if self.target and self.is_begun else set()
        if recipe is not None and recipe.uses_real != plan.recipe.uses_real:
            raise UserError(
                f"'{root}' records real images '{recipe.uses_real}' that its generator was fitted on, not "
                f"'{plan.recipe.uses_real}'; give --uses-real '{recipe.uses_real}', or choose another output"
            )
        if hashes - {plan.recipe.hash}:
            raise UserError(
                f"the recipe in '{root}' has fields that this version of fakeit does not know; install a newer one"
            )
        if recipe is None and (names := _foreign_names(self.storage)):
            raise UserError(f"'{root}' holds files but no clone ('{names[0]}'); choose an empty or new directory")


def read_state(storage: Storage) -> State:
    """Reads the state of an output, without writing anything.

    Raises:
        UserError: a file cannot be read, or was written by fakeit 0.1.
    """
    old, is_readable = None, True
    # MANIFEST is read twice, because another run may be moving it.
    for name in (MANIFEST, OLD_MANIFEST, MANIFEST):
        if content := _read(storage, name):
            old, is_readable = parse_manifest(content, storage.path(MANIFEST)), name == MANIFEST
            break
    fields = ("recipe", "recipe_hash")
    target = _read_json(storage, TARGET, fields) or _read_json(storage, OLD_TARGET, fields)
    if target is None and old is None and storage.exists(f"{MAKING}/recipe.json"):
        raise UserError(
            f"'{storage.root}' was begun by fakeit 0.1; continue with that version, or choose another output"
        )
    finalizing = _read_json(storage, FINALIZING)
    return State(storage, old, is_readable, target, finalizing["num_rounds"] if finalizing else None)


def write_target(plan: Plan, state: State) -> None:
    """Records what is being made, and its prompts, for all later runs. A longer clone that has begun stays the target."""
    target = {"recipe": plan.recipe.to_dict(), "recipe_hash": plan.recipe.hash, "num_rounds": plan.num_rounds}
    is_longer = state.target is not None and state.target["num_rounds"] > plan.num_rounds
    is_new = target != state.target and not (state.is_begun and is_longer)
    if (prompts := plan.recipe.prompts) and not state.storage.exists(staged_prompts(prompts)):
        state.storage.write(staged_prompts(prompts), prompt_file_of(prompts))
    if is_new or not state.storage.exists(TARGET):
        state.storage.write(
            TARGET, json.dumps(target if is_new else state.target, ensure_ascii=False, indent=1).encode()
        )


def made_shards(plan: Plan, storage: Storage, requested: Sequence[int], folder: str = MAKING) -> set[int]:
    """Returns the requested shards whose sidecar is in a folder, by one listing. Only `finalize` checks the content."""
    there = set(storage.names(folder))
    return {shard for shard in requested if sidecar_name(plan, shard) in there}


def missing_shards(plan: Plan, state: State, requested: Sequence[int]) -> list[int]:
    """Returns the requested shards that are still to be made, in their order."""
    num_kept = len(state.kept(plan))
    requested = [shard for shard in requested if shard >= num_kept]
    made = made_shards(plan, state.storage, requested) if requested else set()
    return [shard for shard in requested if shard not in made]


def _foreign_names(storage: Storage) -> list[str]:
    """Returns the files that neither `make` nor its interrupted writers have written."""
    return [n for n in storage.names("") if not n.endswith(".tmp") and not n.startswith(f"{MAKING}/")]


def _read(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_json(storage: Storage, name: str, names: Sequence[str] = ()) -> dict[str, Any] | None:
    if (content := _read(storage, name)) is None:
        return None
    try:
        found = json.loads(content)
        return {**found, "num_rounds": int(found["num_rounds"]), **{name: found[name] for name in names}}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{storage.path(name)}' cannot be read ({type(error).__name__}); remove the folder '{MAKING}' to restart"
        ) from None


def _check_same_recipe(ours: Recipe, theirs: Recipe, root: str) -> None:
    if ours == theirs:
        return
    names = [f.name for f in dataclasses.fields(ours) if f.compare]
    differing = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    shown = [
        f"{name} {_short(getattr(theirs, name))}, not {_short(getattr(ours, name))}" for name in differing[:MAX_SHOWN]
    ]
    if len(differing) > MAX_SHOWN:
        shown.append(f"and {len(differing) - MAX_SHOWN} more fields")
    raise UserError(
        f"'{root}' holds a different recipe ({'; '.join(shown)}); choose another output, or use that recipe"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
