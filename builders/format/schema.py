"""The fields of a sample's json and of the metadata table.

Names and types are the same in both, and no field is ever null.
"""

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
"""Python type of each field, in the order in which the fields are written. Format 2 fixes them, see docs/format.md."""

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_DATASETS = {str: "string", int: "int64", float: "float64"}

MEMBERS = ("cls", "image", "json")
"""Members of a sample, in the order in which they lie in the tar."""

METADATA_SCHEMA = pa.schema(
    [pa.field("key", pa.string(), nullable=False), pa.field("label", pa.int64(), nullable=False)]
    + [pa.field(name, _ARROW[kind], nullable=False) for name, kind in JSON_FIELDS.items()]
    + [pa.field("shard", pa.string(), nullable=False)]
    + [pa.field(f"{m}_{what}", pa.int64(), nullable=False) for m in MEMBERS for what in ("offset", "size")]
)
"""One row per image: key, label, every json field, shard, and the offset and size in bytes of each member's content."""


def json_faults(fields: Any) -> list[str]:
    """Returns what is wrong with a sample's json: missing fields, nulls and wrong types. Others may be there."""
    if not isinstance(fields, dict):
        return ["json is not an object"]
    faults = [f"json lacks the field '{name}'" for name in JSON_FIELDS if name not in fields]
    for name, kind in JSON_FIELDS.items():
        if name in fields and type(fields[name]) is not kind:
            faults.append(f"json field '{name}' is {fields[name]!r}, not of type {kind.__name__}")
    return faults


def card_features(image_format: str, label_names: list[str]) -> list[dict[str, Any]]:
    """Returns the `features` of the card's YAML, in the form that `datasets` reads."""
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
