"""The plan: which image is where in a clone. It is a pure function of the recipe.

Nothing is stored; any sample is found in O(log n).
A plan is a sequence of rounds. Classes appear in rounds in proportion to their base counts, shuffled within each round.
A shard is a whole number of rounds. So any prefix of shards holds the classes in proportion, and a clone grows by
appending shards.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from builders.classes.scenes import scene_phrase
from builders.engines.base import engine
from builders.errors import UserError
from builders.format.rounds import MAX_COUNT, Rounds
from builders.prompts.prompt_table import Prompt, prompt_of
from builders.recipes.prompts import render_prompt, template_fields, template_problem
from builders.recipes.recipe import Recipe
from builders.recipes.sample import Sample


def sample_seed(recipe_seed: int, wnid: str, index: int, attempt: int) -> int:
    """Returns the seed of one image: the first 53 bits of BLAKE2b-64 over "<recipe seed>/<wnid>/<index>/<attempt>".

    The text is in UTF-8. The seed depends on nothing else, so recipes that differ in prompt or guidance share their
    noise image by image.
    """
    digest = hashlib.blake2b(f"{recipe_seed}/{wnid}/{index}/{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11


def draw_background(seed: int, num_scenes: int) -> int:
    """Returns the index of the scene for an image's seed: BLAKE2b-64 over "<seed>/background", modulo `num_scenes`."""
    digest = hashlib.blake2b(f"{seed}/background".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_scenes


@dataclass(frozen=True)
class Plan:
    """A recipe and its length: `num_rounds` rounds, which with equal base counts are that many images per class."""

    recipe: Recipe
    num_rounds: int

    def __post_init__(self) -> None:
        if self.num_rounds < 1:
            raise UserError(f"{self.num_rounds} images per class are too few; ask for at least 1")
        if self.num_rounds > MAX_COUNT:
            raise UserError(f"{self.num_rounds} images per class are too many; keys have room for {MAX_COUNT}")
        if not self.recipe.classes:
            raise UserError(f"recipe '{self.recipe.name}' has no classes")
        engine(self.recipe.engine).check(self.recipe, self.num_rounds)
        recipe = self.recipe
        if problem := template_problem(recipe.prompt, recipe.name, recipe.classes, bool(recipe.scenes)):
            raise UserError(problem)
        if recipe.prompts and not engine(recipe.engine).IS_SYNTHETIC:
            raise UserError(f"'{recipe.name}' generates no images; leave out --prompts")

    @cached_property
    def rounds(self) -> Rounds:
        return Rounds(tuple(entry.base_count for entry in self.recipe.classes), self.recipe.shard_size)

    @property
    def num_samples(self) -> int:
        return self.rounds.num_samples_before(self.num_rounds)

    def class_counts(self) -> NDArray[np.int64]:
        """Returns the number of images of each class, by label: (classes,)."""
        return self.rounds.taken(self.num_rounds)

    @property
    def num_shards(self) -> int:
        return -(-self.num_rounds // self.rounds.per_shard)

    def shard_rounds(self, shard: int) -> range:
        """Returns the rounds of a shard; the last shard may have fewer."""
        return range(shard * self.rounds.per_shard, self.shard_end(shard))

    def shard_end(self, shard: int) -> int:
        """Returns the round after a shard's last one."""
        return min((shard + 1) * self.rounds.per_shard, self.num_rounds)

    def shard_start(self, shard: int) -> int:
        """Returns the position of a shard's first sample in the clone."""
        return self.rounds.num_samples_before(self.shard_rounds(shard).start)

    def shard_length(self, shard: int) -> int:
        """Returns the number of samples in a shard."""
        rounds = self.shard_rounds(shard)
        return self.rounds.num_samples_before(rounds.stop) - self.rounds.num_samples_before(rounds.start)

    def count_samples(self, shards: Iterable[int]) -> int:
        """Returns the number of samples in some shards; a shard that is listed twice counts once."""
        numbers = np.unique(np.fromiter(shards, np.int64))
        # Runs of consecutive shards: only the ends of a run are looked up.
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1) if len(numbers) else []
        return sum(self.shard_start(run[-1]) + self.shard_length(run[-1]) - self.shard_start(run[0]) for run in runs)

    def shard_samples(self, shard: int) -> list[Sample]:
        """Returns all samples of a shard in order."""
        return [self.sample(*pair) for number in self.shard_rounds(shard) for pair in self._round_order(number)]

    def sample_at(self, position: int) -> Sample:
        """Returns the sample at a position of the clone, 0 to num_samples - 1."""
        if not 0 <= position < self.num_samples:
            raise IndexError(position)
        # Bisect for the round r with before(r) <= position < before(r + 1).
        low, high = 0, self.num_rounds
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.rounds.num_samples_before(middle) <= position else (low, middle)
        label, index = self._round_order(low)[position - self.rounds.num_samples_before(low)]
        return self.sample(label, index)

    def sample(self, label: int, index: int, attempt: int = 0) -> Sample:
        """Returns the index-th image of a class, wherever it is in the clone."""
        seed = sample_seed(self.recipe.seed, self.recipe.classes[label].wnid, index, attempt)
        return self.sample_with_seed(label, index, attempt, seed)

    def sample_with_seed(self, label: int, index: int, attempt: int, seed: int) -> Sample:
        """Returns an image of a class with the given seed, from which its background is drawn as well."""
        recipe, entry = self.recipe, self.recipe.classes[label]
        found = prompt_of(recipe, entry.wnid, index) if recipe.prompts else Prompt(-1, recipe.prompt, is_template=True)
        has_background = found.is_template and "b" in template_fields(found.text)
        background = recipe.scenes[draw_background(seed, len(recipe.scenes))] if has_background else ""
        return Sample(
            key=f"{entry.wnid}_{index:08d}",
            label=label,
            wnid=entry.wnid,
            class_name=entry.name,
            index=index,
            attempt=attempt,
            seed=seed,
            background=background,
            prompt=render_prompt(found.text, entry, scene_phrase(background)) if found.is_template else found.text,
            prompt_index=found.row,
        )

    def _round_order(self, number: int) -> list[tuple[int, int]]:
        """Returns label and index of a round's samples, sorted by 64-bit keys from SHAKE128 over "<seed>/round/<r>"."""
        taken = self.rounds.taken(number)
        present = np.flatnonzero(self.rounds.taken(number + 1) > taken)
        stream = hashlib.shake_128(f"{self.recipe.seed}/round/{number}".encode()).digest(8 * len(taken))
        keys = np.frombuffer(stream, dtype=">u8")[present]
        return [(int(label), int(taken[label])) for label in present[np.argsort(keys, kind="stable")]]
