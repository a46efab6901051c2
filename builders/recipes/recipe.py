"""The recipe: what every image of a clone is meant to be.

Two clones of one recipe differ in length, and at most in the last bits of pixels. The execution (`execution.py`) says
how images are computed; it is not part of the recipe.

Invariant: `Recipe.hash` changes exactly when the meaning changes. A field of `NEUTRAL` is neither hashed nor written at
its default, so that a new field changes no old hash.
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
from builders.recipes.timestep_interval import WHOLE, written

SAFETY = ("off", "flag", "drop")
DTYPES = ("float32", "float16", "bfloat16")
NEUTRAL = {
    "background_color": WHITE, "num_left_out": 0, "true_cfg_scale": 1.0, "variant": "", "uses_real": "",
    "not_applied": "", "guidance_interval": WHOLE,
}  # fmt: skip
"""Fields that are left out of hash and JSON at this value: all that are newer than format 2, and no others."""
UNHASHED = ("num_left_out", "uses_real", "not_applied")
"""Fields that are written and say something about the images, but do not change them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    """Builder and config, such as "digits_sd/c_cfg2"."""
    engine: str = "diffusion"
    """Engine that makes the pixels: a module of `builders.engines`, or one that another package adds."""
    split: str = "train"
    """Name of the clone's only split: train, validation or test."""
    prompt: str = "{c}"
    """Prompt template. Fields: {c} names, {lemma} first name, {h_c} hypernym, {d_c} definition, {b} background."""
    negative_prompt: str = ""
    """Text that guidance steers images away from."""
    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id of a diffusers pipeline, or a directory that holds one."""
    revision: str = ""
    """Commit of the model on the Hub, or "sha256:…" over a directory's files."""
    variant: str = ""
    """Variant of the weights, such as fp16 for files named *.fp16.safetensors."""
    scheduler: str = "PNDMScheduler"
    """Class name of the sampler in diffusers; "" means the model's own, which is recorded when the model is pinned."""
    num_inference_steps: int = 50
    """Denoising steps per image."""
    guidance_scale: float = 7.5
    """Scale of guidance. Its family says from which value it acts: for most, above 1 (docs/families.md)."""
    true_cfg_scale: float = 1.0
    """Second guidance scale of models such as Flux, which a negative prompt needs there; at 1 or below, it is off."""
    guidance_interval: str = WHOLE
    """Timesteps that are guided, START:STOP as shares of their number, such as 0.2:0.8; the others need one pass, not two."""
    width: int = 512
    """Width of the images in pixels."""
    height: int = 384
    """Height of the images in pixels."""
    dtype: str = "float32"
    """Floating-point type of the model: float32, float16 or bfloat16."""
    safety: str = "flag"
    """The model's safety checker: off, flag (record verdicts) or drop (generate flagged images with another seed)."""
    image_format: str = "jpg"
    """File format of the images: jpg, png or webp."""
    image_quality: int = 95
    """Quality of jpg and webp, 1 to 100."""
    seed: int = 0
    """Seed from which the seed of every image is derived."""
    shard_size: int = 1000
    """Approximate number of images per shard; a shard always holds a whole number of rounds through the classes."""
    classes: tuple[ClassEntry, ...] = ()
    """Classes of the images, sorted by wnid."""
    scenes: tuple[str, ...] = ()
    """Scenes (Places categories such as desert/sand) from which {b} is drawn."""
    background_color: str = WHITE
    """Color behind the transparent pixels of real images: a name or #rrggbb."""
    num_left_out: int = field(default=0, compare=False)
    """Number of real files left out because they cannot be read. It is not hashed; the recipe counts the others."""
    uses_real: str = field(default="", compare=False)
    """Real images of the target or of evaluation sets that the generator was fitted on, such as "digits, train"; the card
    names them. Pretraining on images of the web does not count."""
    not_applied: str = field(default="", compare=False)
    """Settings of the named recipe that change no image of this model, such as "guidance_scale 2.0"."""
    model_dir: str = field(default="", compare=False)
    """Directory of the model, or of the real images, on this machine. It is neither hashed nor written."""

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
                raise UserError(f"{name} is {value!r}, which is not valid UTF-8")
        if self.shard_size < 1:
            raise UserError(f"shard_size is {self.shard_size}, but must be at least 1")
        if not all(isinstance(scene, str) and _is_utf8(scene) for scene in self.scenes):
            raise UserError("scenes must be strings, such as desert/sand")
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
        object.__setattr__(self, "guidance_interval", written(self.guidance_interval))
        check_format(self.image_format)
        check_color(self.background_color)
        try:
            template_fields(self.prompt)
        except ValueError as error:
            raise UserError(str(error)) from None
        _check_classes(self.classes)

    @cached_property
    def hash(self) -> str:
        """The sha256 of the canonical JSON of all fields except `model_dir` and `UNHASHED`."""
        fields = {name: value for name, value in self.to_dict().items() if name not in UNHASHED}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def label_names(self) -> list[str]:
        """The wnid (or slug) of each label."""
        return [entry.wnid for entry in self.classes]

    @property
    def default_rounds(self) -> int:
        """The number of rounds of the 1x clone: the largest base count; 0 without classes."""
        return max((entry.base_count for entry in self.classes), default=0)

    def rounds(self, images_per_class: int | None = None, scale: float | None = None) -> int:
        """Returns the number of rounds of a clone.

        Args:
            images_per_class: Number of images of the largest class.
            scale: Length as a multiple of the 1x clone; 1 if neither is given.

        Raises:
            UserError: both are given, or `scale` is not finite.
        """
        if images_per_class is not None and scale is not None:
            raise UserError("--images-per-class and --scale both set the length; give one of them")
        if scale is not None and not math.isfinite(scale):
            raise UserError(f"--scale is {scale}; give a number, such as 0.1 or 50")
        if scale is not None:
            return round(scale * self.default_rounds)
        return self.default_rounds if images_per_class is None else images_per_class

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values, without `model_dir` and fields of `NEUTRAL` at their default."""
        fields = asdict(self)
        del fields["model_dir"]
        for name, default in NEUTRAL.items():
            if fields[name] == default:
                del fields[name]
        return {**fields, "classes": list(fields["classes"]), "scenes": list(fields["scenes"])}


def recipe_from_dict(fields: dict[str, Any]) -> Recipe:
    """Reads a recipe from the dict of `Recipe.to_dict`.

    Fields that this version does not know are ignored; the recipe's hash then differs from the recorded one.

    Raises:
        UserError: a field is missing or has another type.
    """
    try:
        classes = tuple(ClassEntry(**entry) for entry in fields["classes"])
        names = {f.name for f in dataclasses.fields(Recipe)}
        known = {name: value for name, value in fields.items() if name in names}
        known |= {"classes": classes, "scenes": tuple(fields["scenes"])}
        if not isinstance(fields["scenes"], list) or None in fields.values():
            raise TypeError("scenes are not a list" if None not in fields.values() else "a field is null")
        known.pop("model_dir", None)
        return override_recipe(Recipe(name=known.pop("name")), known)
    except (KeyError, TypeError) as error:
        raise UserError(f"the recipe cannot be read ({type(error).__name__}: {error})") from None


def override_recipe(recipe: Recipe, overrides: dict[str, Any]) -> Recipe:
    """Returns the recipe with some fields replaced; None keeps a field.

    Another model resets what belongs to a model (revision, variant, scheduler, …), unless that is given as well.

    Raises:
        UserError: a name is not a field of a recipe, or a value is out of range.
    """
    names = [f.name for f in dataclasses.fields(Recipe)]
    for name in overrides:
        if name not in names:
            raise UserError(f"unknown field '{name}' for recipe '{recipe.name}'; {suggest(name, names)}")
    given = {name: value for name, value in overrides.items() if value is not None}
    if given.get("model", recipe.model) != recipe.model:
        given = {"revision": "", "variant": "", "scheduler": "", "uses_real": "", "not_applied": "", **given}
    return dataclasses.replace(recipe, **given)


def _is_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates; arguments in other encodings than UTF-8 have them."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _kinds() -> dict[str, type]:
    return {f.name: f.type for f in dataclasses.fields(Recipe) if f.type in (str, int, float, bool)}  # type: ignore[misc]


def _check_classes(classes: tuple[ClassEntry, ...]) -> None:
    wnids = [entry.wnid for entry in classes]
    if wnids != sorted(set(wnids)):
        raise UserError("the classes of a recipe must be sorted by id, each listed once")
    for wnid in wnids:
        if not 0 < len(wnid) <= MAX_CLASS_ID or set(wnid) & set("./\\ \t\n"):
            raise UserError(
                f"class id '{wnid}' has a dot, slash or space, or not 1 to {MAX_CLASS_ID} characters; use a wnid or a slug"
            )
    for entry in classes:
        texts = (entry.name, entry.hypernym, entry.definition)
        if not all(isinstance(text, str) and _is_utf8(text) for text in texts) or type(entry.base_count) is not int:
            raise UserError(f"class '{entry.wnid}' has fields of a wrong type; give strings and a whole number")
        if entry.base_count > MAX_COUNT:
            raise UserError(f"class '{entry.wnid}' has {entry.base_count} images; keys have room for {MAX_COUNT}")
        if entry.base_count < 1:
            raise UserError(f"class '{entry.wnid}' has {entry.base_count} images; leave it out or give it at least 1")
