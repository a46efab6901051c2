"""Tests image-text models of transformers from directories: CLIP and SigLIP with random weights in real layouts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.errors import UserError
from builders.networks.clip import ClipEmbedder
from tests.tiny_pipeline import write_tiny_pipeline


def write_tiny(out: Path, family: str) -> None:
    import torch
    import transformers
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    from builders.embedded.train import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a photo of a zero, digit."])
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    tokens = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "eos_token_id": tokenizer.eos_token_id}
    vision = {**shape, "image_size": 32, "patch_size": 8}
    if family == "clip":
        config: Any = transformers.CLIPConfig(text_config={**shape, **tokens}, vision_config=vision, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(out)
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(out)
    else:
        text = {**shape, **tokens, "projection_size": 16}
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        transformers.SiglipModel(config).save_pretrained(out)
        SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(out)
    tokenizer.save_pretrained(out)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_clip__gives_unit_vectors_that_depend_on_the_input_alone(family: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / family, family)
    embedder = ClipEmbedder(str(tmp_path / family))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40 + 8 * number, 48, 3), dtype=np.uint8) for number in range(3)]
    found = embedder.embed_images(images)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(found[1], embedder.embed_images(images[1:2])[0], atol=1e-5)
    texts = ["a photo of a zero, digit.", "a drawing of a one.", "a " * 99]
    embedded = embedder.embed_texts(texts)
    assert embedded.shape == (3, found.shape[1]) and np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert np.allclose(embedded[:1], embedder.embed_texts(texts[:1]), atol=1e-5)
    assert embedder.name == family and embedder.revision.startswith("sha256:") and embedder.logit_scale > 0


def test_clip__refuses_other_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded as a CLIP"):
        ClipEmbedder(str(tmp_path / "nothing"))
    write_tiny_pipeline(tmp_path / "pipeline")
    with pytest.raises(UserError, match=r"cannot be loaded as a CLIP|does not embed both"):
        ClipEmbedder(str(tmp_path / "pipeline" / "text_encoder"))
