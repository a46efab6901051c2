"""The fields of a sample's json and of the metadata table: the same names and types everywhere, none ever null."""

from typing import Any

import pyarrow as pa

JSON_FIELDS: dict[str, type] = {
    "prompt": str,
    "negative_prompt": str,
    "class_name": str,
    "wnid": str,
    "background": str,
    "index": int,
    "attempt": int,
    "seed": int,
    "guidance_scale": float,
    "num_inference_steps": int,
    "width": int,
    "height": int,
    "model": str,
    "revision": str,
    "scheduler": str,
    "dtype": str,
    "vae_dtype": str,
    "adapters": str,
    "batch_size": int,
    "batch_slot": int,
    "nsfw": int,
    "broken": int,
    "check_score": float,
    "verdict": str,
    "prompt_index": int,
    "sha256": str,
}
"""Name to Python type, in the order in which they are written. They are fixed for format 2, see docs/format.md."""

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_DATASETS = {str: "string", int: "int64", float: "float64"}

MEMBERS = ("cls", "image", "json")
"""A sample's members in the order in which they lie in the tar."""

METADATA_SCHEMA = pa.schema(
    [pa.field("key", pa.string(), nullable=False), pa.field("label", pa.int64(), nullable=False)]
    + [pa.field(name, _ARROW[kind], nullable=False) for name, kind in JSON_FIELDS.items()]
    + [pa.field("shard", pa.string(), nullable=False)]
    + [pa.field(f"{m}_{what}", pa.int64(), nullable=False) for m in MEMBERS for what in ("offset", "size")]
)
"""One row an image: key, label, every json field, shard, offset and size in bytes of each member's content."""


def json_faults(fields: Any) -> list[str]:
    """What is wrong with a sample's json: missing, null and re-typed fields; others may be there."""
    if not isinstance(fields, dict):
        return ["json is no object"]
    faults = [f"json lacks the field '{name}'" for name in JSON_FIELDS if name not in fields]
    for name, kind in JSON_FIELDS.items():
        if name in fields and type(fields[name]) is not kind:
            faults.append(f"json field '{name}' is {fields[name]!r}, not of type {kind.__name__}")
    return faults


def card_features(image_format: str, label_names: list[str]) -> list[dict[str, Any]]:
    """The `features` of the card's YAML, as `datasets` reads them."""
    return [
        {"name": image_format, "dtype": "image"},
        {
            "name": "cls",
            "dtype": {"class_label": {"names": {str(label): name for label, name in enumerate(label_names)}}},
        },
        {"name": "json", "struct": [{"name": name, "dtype": _DATASETS[kind]} for name, kind in JSON_FIELDS.items()]},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]
