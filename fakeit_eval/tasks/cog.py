"""ImageNet-CoG (Sariyildiz et al., 2021): IN1K, and five levels of 1,000 concepts each.

The images of the levels are those of ImageNet-21K, ROOT/imagenet_21k/<wnid>/…. ROOT/cog holds the published lists
cog_levels_mapping_file.pkl (a list of wnids for each level) and cog_concepts_split_file.pkl (the files of train and
test for each wnid). Both are pickles; they are read as plain data, and no code in them can run. IN1K is ImageNet-1K
itself, in ROOT/imagenet/train and ROOT/imagenet/val. In all of them val is drawn from train."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from builders.errors import UserError
from builders.image_sets.annotation_files import DataRoot, guarded
from builders.image_sets.base import ImageSet
from builders.image_sets.files import open_files, open_folder
from builders.image_sets.plain_pickle import read_plain_pickle
from fakeit_eval.tasks.base import Task

LEVELS, SPLITS = "cog_levels_mapping_file.pkl", "cog_concepts_split_file.pkl"
IMAGES = "imagenet_21k"
"""Folder of the levels' images, below ROOT."""


def open_splits(task: Task, data_root: DataRoot) -> dict[str, ImageSet]:
    root = Path(data_root.root)
    if task.name == "cog_in1k":
        folders = {"train": root / "imagenet" / "train", "test": root / "imagenet" / "val"}
        return {split: replace(open_folder(str(folder)), name=task.name) for split, folder in folders.items()}
    level = int(task.name.removeprefix("cog_l"))
    levels, splits = (read_plain_pickle(root / "cog" / name) for name in (LEVELS, SPLITS))
    wnids = guarded(task.name, data_root, lambda: _concepts(levels, level))
    return {split: _split(task, data_root, wnids, splits, split) for split in ("train", "test")}


def _concepts(levels: Any, level: int) -> tuple[str, ...]:
    """Sorted wnids of a level; `levels` is a list in the order of the levels, or a dict with keys such as "L1" or 1."""
    if isinstance(levels, dict):
        keys = (f"L{level}", f"l{level}", level, str(level))
        found = next((levels[key] for key in keys if key in levels), None)
    else:
        found = levels[level - 1]
    if not isinstance(found, list | tuple) or not all(isinstance(wnid, str) for wnid in found):
        raise UserError(f"'{LEVELS}' has no list of wnids for level {level}; download it again")
    return tuple(sorted(found))


def _split(task: Task, data_root: DataRoot, wnids: tuple[str, ...], splits: Any, split: str) -> ImageSet:
    files: list[str] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        try:
            names = sorted(str(name).lstrip("/\\") for name in splits[wnid][split])
        except (KeyError, TypeError):
            raise UserError(f"'{SPLITS}' has no {split} files of concept '{wnid}'; download it again") from None
        outside = next((name for name in names if ".." in Path(name).parts), None)
        if outside is not None:
            raise UserError(f"'{SPLITS}' names '{outside}', which is outside of the images' folder; download it again")
        files += names
        labels += [label] * len(names)
    root = Path(data_root.root) / IMAGES
    return open_files([str(root / name) for name in files], np.array(labels), wnids, root=str(root), name=task.name)
