"""The training data of a run: one or more clones, whole or in part, with one numbering of samples, shards and labels.

A label stands for a class id. The class ids of the first clone come first, then the new ones of each later clone.
"""

import bisect
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from builders.errors import UserError
from builders.format.manifest import ShardEntry
from builders.format.open_clone import Clone, open_clone
from builders.format.samples import SampleView
from fakeit_train.config import DataConfig
from fakeit_train.data.order import BatchOrder, Order, weighted_order
from fakeit_train.data.selection import Condition, Piece, digest_of_keys, find_excluded, num_broken, read_keys, select
from fakeit_train.data.siblings import Numbers, Siblings, shards_together

if TYPE_CHECKING:
    from fakeit_train.distributed import World


@dataclass(frozen=True)
class Mixture:
    clones: tuple[Clone, ...]
    pieces: tuple[tuple[Piece, ...], ...]
    """Selected samples of each clone, by shard."""
    label_names: tuple[str, ...]
    """Class id of each label."""
    excluded: str = ""
    """Digest of the list of excluded keys; "" without a list."""
    num_broken: int = 0
    """Number of broken images in the clones, which are left out."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the readable class name of each label, from the first clone that has the class."""
        found: dict[str, str] = {}
        for clone in self.clones:
            for identity, name in zip(clone.manifest.label_names, clone.class_names, strict=True):
                found.setdefault(identity, name)
        return tuple(found[identity] for identity in self.label_names)

    @cached_property
    def _all(self) -> list[tuple[int, Piece]]:
        return [(number, piece) for number, pieces in enumerate(self.pieces) for piece in pieces]

    @cached_property
    def _starts(self) -> list[int]:
        return list(itertools.accumulate((piece.length for _, piece in self._all), initial=0))

    @cached_property
    def _labels(self) -> list[list[int]]:
        """Maps, for each clone, the clone's labels to labels of the mixture."""
        known = {name: label for label, name in enumerate(self.label_names)}
        return [[known[name] for name in clone.manifest.label_names] for clone in self.clones]

    def __len__(self) -> int:
        return self._starts[-1]

    def view(self, number: int) -> SampleView:
        """Returns a sample with its label in the mixture; with several clones, "<clone number>/" precedes its key."""
        which, local = self._locate(number)
        return self._here(which, self.clones[which].view(local))

    def views(self, numbers: Sequence[int]) -> list[SampleView]:
        """Returns the samples of a batch; samples of the same clone are read together."""
        located = [self._locate(number) for number in numbers]
        views: dict[tuple[int, int], SampleView] = {}
        for which, clone in enumerate(self.clones):
            locals_ = [local for clone_number, local in located if clone_number == which]
            views |= {(which, local): view for local, view in zip(locals_, clone.views(locals_), strict=True)}
        return [self._here(which, views[which, local]) for which, local in located]

    def _here(self, which: int, view: SampleView) -> SampleView:
        """Returns a clone's sample with its key and its label in the mixture."""
        return SampleView(self._name(which, view.key), self._labels[which][view.label], view.image, view.prompt_index)

    def prompt_id(self, number: int, view: SampleView) -> int:
        """Returns what is the same for two samples exactly if they share a prompt; -1 without a prompt file.

        A template gives each class a prompt of its own, so the label is part of it, and so is the clone.
        """
        which, _ = self._locate(number)
        return -1 if view.prompt_index < 0 else (which << 52) | (view.label << 32) | view.prompt_index

    def prompt_ids(self, shard: int) -> Numbers:
        """Returns the prompt ids (n,) of a shard's selected samples, as `prompt_id` does."""
        which, piece = self._all[shard]
        index = self.clones[which].shard_index(piece.shard)
        rows = slice(piece.length) if piece.rows is None else piece.rows
        labels, prompts = (np.array(index[name], dtype=np.int64)[rows] for name in ("label", "prompt_index"))
        return (which << 52) | (labels << 32) | prompts

    @property
    def images_per_prompt(self) -> int:
        """Returns the largest number of images of a prompt that a clone was made with.

        Raises:
            UserError: a clone has no prompts of its own for its images.
        """
        for clone in self.clones:
            if not clone.manifest.recipe.get("prompts"):
                raise UserError(
                    f"'{clone.root}' has one prompt for all images of a class, so an objective that compares images of one "
                    "prompt cannot use it; make a clone with --prompts, or choose objective=supervised_contrastive"
                )
        return max(_images_per_prompt(clone) for clone in self.clones)

    def _siblings(self, count: int, numbers: Sequence[int], first: int = 0) -> Siblings:
        """Returns how the images of a prompt come together in an order of the clones with these numbers.

        `first` is the number of the first of their shards.
        """
        shards = [(which, piece.shard) for which in numbers for piece in self.pieces[which]]
        length = {
            which: shards_together(self.clones[which].rounds.per_shard, _images_per_prompt(self.clones[which]))
            for which in numbers
        }
        units, stop = [], 0
        for _, together in itertools.groupby(shards, lambda one: (one[0], one[1] // length[one[0]])):
            start, stop = stop, stop + len(list(together))
            units.append(range(start, stop))
        return Siblings(count, tuple(units), lambda shard: self.prompt_ids(first + shard))

    def key(self, number: int) -> str:
        """Returns the key of a sample, as `view` does, without reading the image."""
        which, local = self._locate(number)
        return self._name(which, self.clones[which].key(local))

    def shard(self, number: int) -> tuple[Clone, ShardEntry]:
        """Returns a shard and its clone, by the shard's number in the mixture."""
        which, piece = self._all[number]
        return self.clones[which], self.clones[which].manifest.shards[piece.shard]

    def shard_of(self, number: int) -> int:
        """Returns the number of the shard that holds a sample."""
        return bisect.bisect_right(self._starts, number) - 1

    @property
    def num_shards(self) -> int:
        return len(self._all)

    def numbers_of(self, shard: int) -> list[int]:
        """Returns the numbers of a shard's selected samples."""
        return list(range(self._starts[shard], self._starts[shard + 1]))

    def order(self, config: DataConfig, *, deals_siblings: bool = False) -> BatchOrder:
        """Returns the training order of the selected samples.

        Args:
            config: Batch size, seed and siblings.
            deals_siblings: Whether images of one prompt come together.

        Raises:
            UserError: the batch size does not fit, or siblings should come together and a clone has none.
        """
        lengths = [tuple(piece.length for piece in pieces) for pieces in self.pieces]
        count = self._num_siblings(config) if deals_siblings else 1
        whole = Order(
            shard_lengths=tuple(itertools.chain.from_iterable(lengths)),
            global_batch_size=config.batch_size,
            seed=config.seed,
            block_size=config.block_size,
            num_canonical_nodes=config.num_canonical_nodes,
            siblings=self._siblings(count, range(len(self.clones))) if count > 1 else None,
        )
        if not config.weights:
            return whole
        order = weighted_order(lengths, config.weights, whole)
        if count == 1:
            return order
        firsts = itertools.accumulate(map(len, lengths), initial=0)
        each = [
            replace(one, siblings=self._siblings(count, [which], first))
            for which, (one, first) in enumerate(zip(order.orders, firsts, strict=False))
        ]
        return replace(order, orders=tuple(each))

    def _num_siblings(self, config: DataConfig) -> int:
        largest = self.images_per_prompt
        if config.siblings > largest:
            raise UserError(
                f"data.siblings is {config.siblings}, but the clones have at most {largest} images of a prompt; lower it, or "
                "make a clone with --images-per-prompt"
            )
        return config.siblings or largest

    def reopened(self) -> "Mixture":
        """Returns a copy with its own files and connections, for a forked process."""
        return replace(self, clones=tuple(Clone(clone.root, clone.manifest, clone.cache) for clone in self.clones))

    def _locate(self, number: int) -> tuple[int, int]:
        """Returns the number of a sample's clone, and the sample's number in that clone."""
        local = self.shard_of(number)
        which, piece = self._all[local]
        row = number - self._starts[local]
        start = self.clones[which].shard_starts[piece.shard]
        return which, start + (row if piece.rows is None else int(piece.rows[row]))

    def _name(self, which: int, key: str) -> str:
        return key if len(self.clones) == 1 else f"{which + 1}/{key}"


def _images_per_prompt(clone: Clone) -> int:
    return int(clone.manifest.recipe.get("images_per_prompt", 1))


def whole(clone: Clone) -> Mixture:
    """Returns all samples of one clone as a mixture."""
    pieces = tuple(Piece(shard, entry.num_samples) for shard, entry in enumerate(clone.manifest.shards))
    return Mixture((clone,), (pieces,), tuple(clone.manifest.label_names))


def open_mixture(roots: list[str], config: DataConfig) -> Mixture:
    """Opens clones and selects their samples as configured.

    Raises:
        UserError: a clone cannot be opened, or a setting does not fit the clones.
    """
    if config.weights and len(config.weights) != len(roots):
        raise UserError(
            f"data.weights has {len(config.weights)} numbers, but there are {len(roots)} clones; give one per clone"
        )
    clones = [open_clone(root, config.cache) for root in roots]
    keys = read_keys(config.exclude) if config.exclude else []
    conditions = [Condition.parse(text) for text in config.where]
    excluded = find_excluded(clones, keys) if keys else [frozenset[int]()] * len(clones)
    pieces = [
        tuple(
            select(clone, scale=config.scale, conditions=conditions, excluded=numbers, keeps_broken=config.keep_broken)
        )
        for clone, numbers in zip(clones, excluded, strict=True)
    ]
    left_out = sum(num_broken(clone, chosen) for clone, chosen in zip(clones, pieces, strict=True))
    names = dict.fromkeys(name for clone in clones for name in clone.manifest.label_names)
    return Mixture(
        tuple(clones), tuple(pieces), tuple(names), digest_of_keys(keys), 0 if config.keep_broken else left_out
    )


def open_on_all_ranks(roots: list[str], config: DataConfig, world: "World") -> Mixture:
    """Opens the same version of the clones on all ranks, even if their branches change meanwhile."""
    mixture = open_mixture(roots, config) if world.is_main else None
    fixed = json.loads(world.share(json.dumps([clone.root for clone in mixture.clones] if mixture else [])))
    return mixture or open_mixture(fixed, config)
