"""The recipe: what every image of a clone is meant to be. Two clones of one recipe differ in length, and at most in last bits.

Invariant: `Recipe.hash` changes exactly when the meaning changes. A field of `NEUTRAL` at its default is neither hashed nor
written, so that a new field changes no old hash. How images are computed is not here but in `execution.py`.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from builders.classes.class_list import MAX_CLASS_ID, ClassEntry
from builders.errors import UserError, suggest
from builders.format.rounds import MAX_COUNT
from builders.images.encode import check_format
from builders.images.read import WHITE, check_color
from builders.recipes.prompts import template_fields

SAFETY = ("off", "flag", "drop")
DTYPES = ("float32", "float16", "bfloat16")
NEUTRAL = {"background_color": WHITE, "num_left_out": 0}
"""Fields that are left out where they have this value. A field that comes later must be here; those of format 2 are not."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    """Builder and config, "digits_sd/c_cfg2"."""
    engine: str = "diffusion"
    """Who makes the pixels: a module of `builders.engines`, or of a package that adds one."""
    split: str = "train"
    """Split that the clone is: train, validation or test."""
    prompt: str = "{c}"
    """Prompt template over the fields c, lemma, h_c, d_c, b."""
    negative_prompt: str = ""
    """What the image is guided away from."""
    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id of a diffusers pipeline, or the name of a directory."""
    revision: str = ""
    """Commit of the model on the Hub, or "sha256:…" over a directory's files."""
    scheduler: str = "PNDMScheduler"
    """Class of the sampler, as diffusers calls it; "" for the model's own, which is filled in when the model is pinned."""
    num_inference_steps: int = 50
    """Denoising steps an image."""
    guidance_scale: float = 7.5
    """Classifier-free guidance; at 1 or below no unconditional pass is run."""
    width: int = 512
    """Pixels."""
    height: int = 384
    """Pixels."""
    dtype: str = "float32"
    """Arithmetic of the model: float32, float16 or bfloat16."""
    safety: str = "flag"
    """The model's own safety checker: off; flag keeps its verdict; drop makes a flagged image again with another seed."""
    image_format: str = "jpg"
    """jpg, png or webp."""
    image_quality: int = 95
    """Quality of jpg and webp, 1 to 100."""
    seed: int = 0
    """Seed from which every image's own is derived."""
    shard_size: int = 1000
    """About how many images a shard holds; always a whole number of rounds."""
    classes: tuple[ClassEntry, ...] = ()
    """The classes of the images, in sorted-wnid order."""
    scenes: tuple[str, ...] = ()
    """Places categories that {b} is drawn from."""
    background_color: str = WHITE
    """Color behind the transparent pixels of real images, a name or #rrggbb."""
    num_left_out: int = field(default=0, compare=False)
    """Files of a real set that could not be read and were left out; no part of the recipe, which counts the others."""
    model_dir: str = field(default="", compare=False)
    """Where the model, or the tree of real images, lies on this machine; no part of the recipe."""

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            value = getattr(self, name)
            if kind is float and type(value) is int:
                object.__setattr__(self, name, float(value))
                value = float(value)
            if kind is float and isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name} is {value}, but must be a finite number")
            if type(value) is not kind:
                raise UserError(f"{name} is {value!r}, but must be of type {kind.__name__}")
            if isinstance(value, str) and not _is_utf8(value):
                raise UserError(f"{name} is {value!r}, which is no text in UTF-8")
        if self.shard_size < 1:
            raise UserError(f"shard_size is {self.shard_size}, but must be at least 1")
        if not all(isinstance(scene, str) and _is_utf8(scene) for scene in self.scenes):
            raise UserError("scenes must be texts, such as desert/sand")
        if self.dtype not in DTYPES:
            raise UserError(f"unknown dtype '{self.dtype}'; choose from {', '.join(DTYPES)}")
        if self.safety not in SAFETY:
            raise UserError(f"unknown safety '{self.safety}'; choose from {', '.join(SAFETY)}")
        if self.split not in ("train", "validation", "test"):
            raise UserError(f"unknown split '{self.split}'; choose from train, validation, test")
        if not 1 <= self.image_quality <= 100:
            raise UserError(f"image_quality is {self.image_quality}, but must be 1 to 100")
        if not 0 <= self.seed < 2**53:
            raise UserError(f"seed is {self.seed}, but must be 0 to 2**53 - 1")
        check_format(self.image_format)
        check_color(self.background_color)
        try:
            template_fields(self.prompt)
        except ValueError as error:
            raise UserError(str(error)) from None
        _check_classes(self.classes)

    @cached_property
    def hash(self) -> str:
        """sha256 of the canonical JSON of all fields but `model_dir` and `num_left_out`."""
        fields = {name: value for name, value in self.to_dict().items() if name != "num_left_out"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def label_names(self) -> list[str]:
        """Wnid (or slug) of each label."""
        return [entry.wnid for entry in self.classes]

    @property
    def default_rounds(self) -> int:
        """Rounds of the 1x clone: the largest base count; 0 without classes."""
        return max((entry.base_count for entry in self.classes), default=0)

    def rounds(self, images_per_class: int | None = None, scale: float | None = None) -> int:
        """Rounds of a clone of so many images of the largest class, or of a multiple of the 1x clone, which is the default.

        Raises:
            UserError: both are given, or `scale` is no finite number.
        """
        if images_per_class is not None and scale is not None:
            raise UserError("--images-per-class and --scale say the same; give one of them")
        if scale is not None and not math.isfinite(scale):
            raise UserError(f"--scale is {scale}; give a number, such as 0.1 or 50")
        if scale is not None:
            return round(scale * self.default_rounds)
        return self.default_rounds if images_per_class is None else images_per_class

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; left out are `model_dir`, and fields of `NEUTRAL` at their default."""
        fields = asdict(self)
        del fields["model_dir"]
        for name, default in NEUTRAL.items():
            if fields[name] == default:
                del fields[name]
        return {**fields, "classes": list(fields["classes"]), "scenes": list(fields["scenes"])}


def recipe_from_dict(fields: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_dict`. Fields that this version does not know are passed over; the hash tells that they differ.

    Raises:
        UserError: a field is missing or of another type.
    """
    try:
        classes = tuple(ClassEntry(**entry) for entry in fields["classes"])
        names = {f.name for f in dataclasses.fields(Recipe)}
        known = {name: value for name, value in fields.items() if name in names}
        known |= {"classes": classes, "scenes": tuple(fields["scenes"])}
        if not isinstance(fields["scenes"], list) or None in fields.values():
            raise TypeError("scenes are no list" if None not in fields.values() else "a field is null")
        known.pop("model_dir", None)
        return override_recipe(Recipe(name=known.pop("name")), known)
    except (KeyError, TypeError) as error:
        raise UserError(f"the recipe cannot be read ({type(error).__name__}: {error})") from None


def override_recipe(recipe: Recipe, overrides: dict[str, Any]) -> Recipe:
    """The recipe with some fields replaced; None leaves a field as it is. Another model has its own revision and scheduler.

    Raises:
        UserError: a name is no field of a recipe, or a value is out of range.
    """
    names = [f.name for f in dataclasses.fields(Recipe)]
    for name in overrides:
        if name not in names:
            raise UserError(f"unknown field '{name}' for recipe '{recipe.name}'; {suggest(name, names)}")
    given = {name: value for name, value in overrides.items() if value is not None}
    if given.get("model", recipe.model) != recipe.model:
        given = {"revision": "", "scheduler": "", **given}
    return dataclasses.replace(recipe, **given)


def _is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates, which the shell makes of other encodings."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _kinds() -> dict[str, type]:
    return {f.name: f.type for f in dataclasses.fields(Recipe) if f.type in (str, int, float, bool)}  # type: ignore[misc]


def _check_classes(classes: tuple[ClassEntry, ...]) -> None:
    wnids = [entry.wnid for entry in classes]
    if wnids != sorted(set(wnids)):
        raise UserError("the classes of a recipe must be in sorted order and each there once")
    for wnid in wnids:
        if not 0 < len(wnid) <= MAX_CLASS_ID or set(wnid) & set("./\\ \t\n"):
            raise UserError(
                f"class id '{wnid}' has a dot, slash or space, or not 1 to {MAX_CLASS_ID} letters; use a wnid or a slug"
            )
    for entry in classes:
        texts = (entry.name, entry.hypernym, entry.definition)
        if not all(isinstance(text, str) and _is_utf8(text) for text in texts) or type(entry.base_count) is not int:
            raise UserError(
                f"class '{entry.wnid}' has fields that are not of their types; give texts and a whole number"
            )
        if entry.base_count > MAX_COUNT:
            raise UserError(f"class '{entry.wnid}' has {entry.base_count} images; keys have room for {MAX_COUNT}")
        if entry.base_count < 1:
            raise UserError(f"class '{entry.wnid}' has {entry.base_count} images; leave it out or give it at least 1")
