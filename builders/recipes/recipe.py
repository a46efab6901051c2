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

from builders.classes.class_list import ClassEntry
from builders.errors import UserError, suggest
from builders.images.read import WHITE
from builders.recipes.adapters import parse_adapter
from builders.recipes.check_recipe import LISTS, check_recipe, is_utf8
from builders.recipes.checks import parse_check
from builders.recipes.timestep_interval import WHOLE, written

NEUTRAL = {
    "background_color": WHITE, "num_left_out": 0, "true_cfg_scale": 1.0, "variant": "", "uses_real": "",
    "not_applied": "", "guidance_interval": WHOLE, "adapters": (), "adapter_licenses": (), "first_step": "", "checks": (),
    "vae_tiling": False, "quantization": "", "attention_backend": "", "first_block_cache": 0.0, "prompts": "",
    "prompts_source": "", "images_per_prompt": 1,
}  # fmt: skip
"""Fields that are left out of hash and JSON at this value: all that are newer than format 2, and no others."""
UNHASHED = ("num_left_out", "uses_real", "not_applied", "adapter_licenses", "prompts_source")
"""Fields that are written and say something about the images, but do not change them."""
UNWRITTEN = ("model_dir", "paths")
"""Fields that say where files are on this machine."""
OF_A_MODEL = {
    "revision": "", "variant": "", "scheduler": "", "uses_real": "", "not_applied": "", "adapters": (),
    "adapter_licenses": (), "first_step": "", "attention_backend": "", "first_block_cache": 0.0,
}  # fmt: skip
"""Fields that another model resets, and to which value."""


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
    prompts: str = ""
    """File or URL of prompts to use instead of one template: .txt, .csv, .jsonl or .parquet (docs/prompts.md)."""
    images_per_prompt: int = 1
    """Number of images of a class in a row that share a prompt of the file."""
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
    adapters: tuple[str, ...] = ()
    """LoRA beside the model's weights, ID[@REVISION][=WEIGHT]: on the Hub, or a file or folder here. May be repeated."""
    first_step: str = ""
    """Give base to denoise the first step without adapters, which brings back the diversity that distilled ones lose."""
    checks: tuple[str, ...] = ()
    """Score that each image must reach, NAME[=MODEL]:LEAST, such as sharpness:50 or FILE.py:0.5; an image below it is
    generated again with another seed. May be repeated."""
    width: int = 512
    """Width of the images in pixels."""
    height: int = 384
    """Height of the images in pixels."""
    dtype: str = "float32"
    """Floating-point type of the model: float32, float16 or bfloat16."""
    vae_tiling: bool = False
    """Decode large images in tiles, which takes less memory and leaves faint seams."""
    quantization: str = ""
    """Give int8 to store the denoiser's matrices in 8 bits, which takes half the memory of 16 bits."""
    attention_backend: str = ""
    """Implementation of attention in transformers that have a choice, by its name in diffusers, such as _native_cudnn."""
    first_block_cache: float = 0.0
    """Threshold of First Block Cache, such as 0.08: a step whose first block changes less reuses the others' results."""
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
    prompts_source: str = field(default="", compare=False)
    """Name or URL of the file that the prompts come from. The recipe's `prompts` are the hash of its rows."""
    adapter_licenses: tuple[str, ...] = field(default=(), compare=False)
    """License of each adapter by its name on the Hub; "other" where nothing says it."""
    model_dir: str = field(default="", compare=False)
    """Directory of the model, or of the real images, on this machine. It is neither hashed nor written."""
    paths: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Files of adapters and checks on this machine, by the text that names them in the recipe. Neither hashed nor written."""

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
            if isinstance(value, str) and not is_utf8(value):
                raise UserError(f"{name} is {value!r}, which is not valid UTF-8")
        for name in LISTS:
            if not all(isinstance(text, str) and is_utf8(text) for text in getattr(self, name)):
                raise UserError(f"{name} must be strings; fix the recipe")
        object.__setattr__(self, "guidance_interval", written(self.guidance_interval))
        object.__setattr__(self, "adapters", tuple(str(parse_adapter(text)) for text in self.adapters))
        object.__setattr__(self, "checks", tuple(str(parse_check(text)) for text in self.checks))
        check_recipe(self)

    @cached_property
    def hash(self) -> str:
        """The sha256 of the canonical JSON of all fields except `UNWRITTEN` and `UNHASHED` ones."""
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
        """Returns the fields as plain JSON values, without `UNWRITTEN` ones and fields of `NEUTRAL` at their default."""
        fields = {name: value for name, value in asdict(self).items() if name not in UNWRITTEN}
        for name, default in NEUTRAL.items():
            if fields[name] == default:
                del fields[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


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
        if None in fields.values():
            raise TypeError("a field is null")
        for name in LISTS:
            if not isinstance(fields.get(name, []), list):
                raise TypeError(f"{name} are not a list")
            known[name] = tuple(fields.get(name, []))
        known = {**known, "scenes": tuple(fields["scenes"]), "classes": classes}
        for name in UNWRITTEN:
            known.pop(name, None)
        return dataclasses.replace(Recipe(name=known.pop("name")), **known)
    except (KeyError, TypeError) as error:
        raise UserError(f"the recipe cannot be read ({type(error).__name__}: {error})") from None


def approximations(recipe: Recipe) -> list[str]:
    """Returns the settings of a recipe that make generating faster or smaller and change images, as a list of words."""
    names = {
        "vae_tiling": "images decoded in tiles",
        "quantization": f"denoiser in {recipe.quantization}",
        "attention_backend": f"attention by {recipe.attention_backend}",
        "first_block_cache": f"First Block Cache at {recipe.first_block_cache:g}",
    }
    return [words for name, words in names.items() if getattr(recipe, name)]


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
        given = {**OF_A_MODEL, **given}
    if given.get("prompts") and given.get("prompt"):
        raise UserError("--prompt is one template and --prompts are those of a file; give one of them")
    if given.get("prompts"):
        given = {"prompt": "", **given}
    elif given.get("prompt") and recipe.prompts:
        given = {"prompts": "", "prompts_source": "", "images_per_prompt": 1, **given}
    if given.get("adapters", recipe.adapters) != recipe.adapters:
        given = {"adapter_licenses": (), **given}
    return dataclasses.replace(recipe, **given)


def _kinds() -> dict[str, type]:
    return {f.name: f.type for f in dataclasses.fields(Recipe) if f.type in (str, int, float, bool)}  # type: ignore[misc]
