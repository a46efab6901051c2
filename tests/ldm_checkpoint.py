"""Writes a Stable Diffusion as a single file with the key names of its original code (CompVis), as checkpoints are shared."""

import re
import shutil
from pathlib import Path


def write_ldm_checkpoint(pipeline: Path, out: Path, layers_per_block: int = 1) -> Path:
    """Writes `out`/model.safetensors and, beside it, the configuration of the pipeline; returns the file's path."""
    from safetensors.torch import load_file, save_file

    weights = {}
    for folder, rename, prefix in (
        ("unet", _unet_key, "model.diffusion_model."),
        ("vae", _vae_key, "first_stage_model."),
        ("text_encoder", _text_key, "cond_stage_model.transformer."),
    ):
        (file,) = (pipeline / folder).glob("*.safetensors")
        loaded = load_file(file)
        num_levels = len({key.split(".")[2] for key in loaded if key.startswith("decoder.up_blocks.")})
        for key, tensor in loaded.items():
            name = rename(key, layers_per_block, num_levels)
            is_1x1 = folder == "vae" and "attn_1" in name and name.endswith("weight") and tensor.dim() == 2
            weights[prefix + name] = tensor[:, :, None, None].contiguous() if is_1x1 else tensor
    shutil.copytree(pipeline, out, ignore=lambda _, names: [name for name in names if name.endswith(".safetensors")])
    save_file(weights, out / "model.safetensors")
    return out / "model.safetensors"


def _text_key(key: str, layers: int, num_levels: int) -> str:
    return "text_model." + key.removeprefix("text_model.")


def _unet_key(key: str, layers: int, num_levels: int) -> str:
    for old, new in (
        ("conv_in.", "input_blocks.0.0."),
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
        ("mid_block.resnets.0.", "middle_block.0."),
        ("mid_block.attentions.0.", "middle_block.1."),
        ("mid_block.resnets.1.", "middle_block.2."),
    ):
        if key.startswith(old):
            return _resnet_key(new + key.removeprefix(old))
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    assert found, key
    way, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if way == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return _resnet_key(f"input_blocks.{block * (layers + 1) + layer + 1}.{int(kind == 'attentions')}.{rest}")
    if kind == "upsamplers":
        # Only the first block of the tiny network has both attention and an upsampler.
        return f"output_blocks.{block * (layers + 1) + layers}.{2 if block == 0 else 1}.{rest}"
    return _resnet_key(f"output_blocks.{block * (layers + 1) + layer}.{int(kind == 'attentions')}.{rest}")


def _resnet_key(key: str) -> str:
    for old, new in (
        (".norm1.", ".in_layers.0."), (".conv1.", ".in_layers.2."), (".time_emb_proj.", ".emb_layers.1."),
        (".norm2.", ".out_layers.0."), (".conv2.", ".out_layers.3."), (".conv_shortcut.", ".skip_connection."),
    ):  # fmt: skip
        if "transformer_blocks" not in key:
            key = key.replace(old, new)
    return key


def _vae_key(key: str, layers: int, num_levels: int) -> str:
    key = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2", key)
    key = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample", key)
    key = re.sub(
        r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)",
        lambda found: f"decoder.up.{num_levels - 1 - int(found[1])}.block.{found[2]}",
        key,
    )
    key = re.sub(
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0",
        lambda found: f"decoder.up.{num_levels - 1 - int(found[1])}.upsample",
        key,
    )
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    for old, new in (
        ("mid_block.attentions.0.", "mid.attn_1."), ("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."),
        ("to_v.", "v."), ("to_out.0.", "proj_out."), ("conv_norm_out.", "norm_out."), ("conv_shortcut.", "nin_shortcut."),
    ):  # fmt: skip
        key = key.replace(old, new)
    return key
