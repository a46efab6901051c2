"""Tests of classifiers and features on small networks of twelve families, with random weights."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from builders.errors import UserError
from builders.networks.backbone import Backbone, build_network, load_backbone, save_backbone
from builders.networks.heads import feature_size, features_of, heads_of
from fakeit_train.config import TrainConfig
from fakeit_train.objectives.base import build_objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.settings import load_config

SMALL_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}

SMALL_SWIN: dict[str, Any] = {
    "img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 6),
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    arch: str
    options: dict[str, Any] = field(default_factory=dict)
    library: str = "timm"
    num_heads: int = 1
    is_encoder: bool = False
    """Whether the library gives the network no classifier of its own."""

    def backbone(self, *classes: str) -> Backbone:
        return Backbone(
            library=self.library,
            arch=self.arch,
            arch_options=self.options,
            input_size=32,
            classes=classes,
            head_bias=True,
        )


FAMILIES = {
    "ResNet": Family("resnet18", library="torchvision"),
    "ConvNeXt": Family("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 48]}),
    "ViT": Family("vit_small_patch16_224", SMALL_VIT),
    "DeiT distilled": Family("deit_tiny_distilled_patch16_224", SMALL_VIT, num_heads=2),
    "DINO": Family("vit_small_patch16_224.dino", SMALL_VIT, is_encoder=True),
    "DINOv2": Family("vit_small_patch14_dinov2", {**SMALL_VIT}, is_encoder=True),
    "MAE": Family("vit_base_patch16_224.mae", SMALL_VIT, is_encoder=True),
    "SigLIP": Family("vit_base_patch16_siglip_224", SMALL_VIT, is_encoder=True),
    "CLIP": Family("vit_base_patch16_clip_224.openai", SMALL_VIT),
    "Swin": Family("swin_tiny_patch4_window7_224", SMALL_SWIN),
    "EfficientNet": Family("efficientnet_b0", library="torchvision"),
    "RegNet": Family("regnety_002"),
}  # fmt: skip


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def trained(backbone: Backbone) -> torch.nn.Module:
    """Returns a network after one step of AdamW."""
    torch.manual_seed(0)
    config: TrainConfig = replace(
        load_config("digits", ["optim.name=adamw", "optim.learning_rate=0.001"]), backbone=backbone
    )
    objective = build_objective(build_network(backbone), config).train()
    before = {name: value.clone() for name, value in objective.named_parameters()}
    optimizer = make_optimizer(objective, config.optim)
    crops = torch.randint(0, 256, (4, 2, 32, 32, 3), dtype=torch.uint8)
    loss, metrics = objective([crops], torch.tensor([0, 1, 2, 0]), torch.full((4,), -1))
    loss.backward()
    optimizer.step()
    changed = [name for name, value in objective.named_parameters() if not torch.equal(value, before[name])]
    assert len(changed) > 0.5 * len(before) and 0 <= float(metrics["train_top1"]) <= 400
    return objective.network


def test_heads__a_step_an_export_and_one_line_of_the_library(family: Family, tmp_path: Path) -> None:
    backbone = family.backbone("a", "b", "c")
    network = trained(backbone).eval()
    heads = heads_of(network)
    assert len(heads) == family.num_heads and all(head.out_features == 3 for head in heads.values())
    save_backbone(tmp_path, backbone, network)
    described, loaded = load_backbone(tmp_path)
    if family.library == "timm":
        stock: torch.nn.Module = timm.create_model(
            family.arch, num_classes=3, checkpoint_path=str(tmp_path / "backbone.safetensors"), **family.options
        )
    else:
        stock = torchvision.models.get_model(family.arch, num_classes=3)
        stock.load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    with torch.inference_mode():
        expected = network(images())
        features = features_of(loaded, images())
        assert torch.allclose(loaded(images()), expected) and torch.allclose(
            stock.eval()(images()), expected, atol=1e-5
        )
        assert features.shape == (4, described.feature_size) and described.feature_size == feature_size(loaded)
        if family.num_heads == 1:
            (head,) = heads_of(loaded).values()
            assert torch.allclose(head(features), expected, atol=1e-5)


def test_heads__an_encoder_gives_the_features_alone(family: Family, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_network(family.backbone()).eval()
    assert heads_of(encoder) == {}
    with torch.inference_mode():
        features = features_of(encoder, images())
        assert features.ndim == 2 and torch.allclose(encoder(images()), features, atol=1e-5)
    save_backbone(tmp_path, family.backbone(), encoder)
    assert load_backbone(tmp_path)[0].feature_size == features.shape[1]


def test_heads__layers_have_their_rates_and_some_parameters_no_decay() -> None:
    config = load_config("digits", ["optim.name=adamw", "optim.layer_decay=0.5", "optim.weight_decay=0.1"])
    backbone = FAMILIES["ViT"].backbone("a", "b")
    objective = build_objective(build_network(backbone), replace(config, backbone=backbone))
    optimizer = make_optimizer(objective, config.optim)
    found = {id(p): one for one in optimizer.param_groups for p in one["params"]}
    settings = {name: found[id(p)] for name, p in objective.named_parameters()}
    free = {"network.cls_token", "network.pos_embed", "network.norm.weight", "network.head.bias"}
    assert all(settings[name]["weight_decay"] == 0 for name in free)
    assert settings["network.blocks.1.mlp.fc1.weight"]["weight_decay"] == 0.1
    layers = ("head.weight", "blocks.1.mlp.fc1.weight", "blocks.0.mlp.fc1.weight", "patch_embed.proj.weight")
    scales = [settings[f"network.{name}"]["lr_scale"] for name in layers]
    assert scales == [1, 0.5, 0.25, 0.125]


def test_heads__a_network_that_says_no_layers_refuses_layer_decay() -> None:
    config = load_config("digits", ["optim.layer_decay=0.5"])
    backbone = FAMILIES["ResNet"].backbone("a")
    with pytest.raises(UserError, match="needs a network that says its layers"):
        make_optimizer(build_objective(build_network(backbone), replace(config, backbone=backbone)), config.optim)


def test_heads__a_network_that_does_not_end_in_a_linear_layer_is_refused() -> None:
    with pytest.raises(UserError, match="ends in a Sequential, not in a linear layer"):
        build_network(Backbone(library="torchvision", arch="squeezenet1_0", classes=("a",)))
