"""Initial weights from real files of every supported kind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.networks.backbone import Backbone, build_network, load_backbone, save_backbone
from builders.networks.heads import heads_of
from fakeit_train.init_weights import load_init_weights

BACKBONE = Backbone(library="torchvision", arch="resnet18", classes=tuple("abcde"))


def fresh(seed: int, backbone: Backbone = BACKBONE) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(backbone)


def same(first: dict[str, Tensor], second: dict[str, Tensor], *, but: tuple[str, ...] = ()) -> bool:
    return all(torch.equal(first[name], second[name]) for name in second if name not in but)


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "lightning": lambda state: {"state_dict": {f"model.{n}": t for n, t in state.items()}, "epoch": 3},
    "distributed": lambda state: {"model": {f"module.{n}": t for n, t in state.items()}},
    "example": lambda state: {"epoch": 3, "best_acc1": torch.tensor(7.0), "state_dict": state},
    "compiled": lambda state: {f"_orig_mod.{n}": t for n, t in state.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_init_weights__loads_a_state_dict_from_a_file(wrapper: str, tmp_path: Path) -> None:
    state = fresh(1).state_dict()
    torch.save(WRAPPERS[wrapper](state), tmp_path / "weights.pth")
    network = fresh(2)
    assert load_init_weights(network, BACKBONE, str(tmp_path / "weights.pth")) == []
    assert same(network.state_dict(), state)


def test_init_weights__other_classes_get_a_random_classifier(tmp_path: Path) -> None:
    other = fresh(1, replace(BACKBONE, classes=tuple("abc"), head_bias=True)).state_dict()
    torch.save(other, tmp_path / "weights.pth")
    network = fresh(2)
    head = next(iter(heads_of(network).values())).weight.detach().clone()
    assert load_init_weights(network, BACKBONE, str(tmp_path / "weights.pth")) == ["fc.weight"]
    assert torch.equal(next(iter(heads_of(network).values())).weight, head)
    assert same(network.state_dict(), other, but=("fc.weight", "fc.bias"))


def test_init_weights__the_classifier_of_a_run_follows_class_ids(tmp_path: Path) -> None:
    save_backbone(tmp_path, BACKBONE, fresh(1))
    network, turned = fresh(2), replace(BACKBONE, classes=tuple("edcba"))
    assert load_init_weights(network, turned, str(tmp_path)) == []
    assert torch.equal(
        next(iter(heads_of(network).values())).weight, next(iter(heads_of(fresh(1)).values())).weight.flip(0)
    )
    assert load_init_weights(fresh(2), replace(BACKBONE, classes=tuple("vwxyz")), str(tmp_path)) == ["fc.weight"]


def test_init_weights__a_bias_that_the_head_lacks_is_reported(tmp_path: Path) -> None:
    with_bias = replace(BACKBONE, head_bias=True)
    torch.save(fresh(1, with_bias).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"has a classifier with a bias; add --set backbone\.head_bias=true"):
        load_init_weights(fresh(2), BACKBONE, str(tmp_path / "weights.pth"))
    assert load_init_weights(fresh(2, with_bias), with_bias, str(tmp_path / "weights.pth")) == []


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained", "weights", "pretrained_cfg_overlay"])
def test_init_weights__a_description_cannot_load_weights(name: str, tmp_path: Path) -> None:
    save_backbone(tmp_path, BACKBONE, fresh(1))
    text = (tmp_path / "backbone.json").read_text()
    (tmp_path / "backbone.json").write_text(
        text.replace('"arch_options": {}', f'"arch_options": {{"{name}": "evil.pth"}}')
    )
    with pytest.raises(UserError, match=f"arch_options has '{name}'"):
        load_backbone(tmp_path)


def test_init_weights__loads_an_earlier_run(tmp_path: Path) -> None:
    save_backbone(tmp_path, BACKBONE, fresh(1))
    network = fresh(2)
    assert load_init_weights(network, BACKBONE, str(tmp_path)) == []
    assert same(network.state_dict(), fresh(1).state_dict())


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_init_weights__loads_pretrained_weights_of_a_library(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test puts weights where the library keeps its downloads, because it cannot download them here."""
    import torchvision

    published = torchvision.models.resnet18(num_classes=1000).state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if library == "torchvision":
        (tmp_path / "hub/checkpoints").mkdir(parents=True)
        torch.save(published, tmp_path / "hub/checkpoints" / "resnet18-f37072fd.pth")
    else:
        import timm

        torch.save(published, tmp_path / "weights.pth")
        monkeypatch.setitem(timm.models.get_pretrained_cfg("resnet18").__dict__, "file", str(tmp_path / "weights.pth"))
        real = timm.create_model
        overlay = {"file": str(tmp_path / "weights.pth")}
        monkeypatch.setattr(timm, "create_model", lambda *a, **o: real(*a, pretrained_cfg_overlay=overlay, **o))
    network = fresh(2)
    assert load_init_weights(network, BACKBONE, library) == ["fc.weight"]
    assert same(network.state_dict(), published, but=("fc.weight", "fc.bias"))


class Harm:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harm"),))


def test_init_weights__a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harm()}, "weights.pth")
    with pytest.raises(UserError, match="cannot be read as tensors alone") as message:
        load_init_weights(fresh(2), BACKBONE, "weights.pth")
    assert not Path("harm").exists() and "\n" not in str(message.value)


def ring() -> dict[str, Any]:
    """Returns a dictionary that contains itself."""
    found: dict[str, Any] = {}
    found["model"] = found
    return found


def _without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: _without(s, "conv1.weight"), "does not fit torchvision's resnet18: it lacks conv1.weight;"),
        (lambda s: {**s, "extra.weight": torch.zeros(1)}, "it also has extra.weight"),
        (lambda s: {**s, "conv1.weight": torch.zeros(1)}, "it has another shape for conv1.weight"),
        (lambda s: {**s, "conv1.weight": s["conv1.weight"] * 1j}, "it has no plain numbers in conv1.weight"),
        (lambda s: {**s, "conv1.weight": s["conv1.weight"].to("meta")}, "it has no plain numbers in conv1.weight"),
        (lambda s: {"epoch": 3}, "holds no tensors"),
        (lambda s: ring(), "holds no tensors"),
        (lambda s: [1], "holds no state dict"),
    ],
)
def test_init_weights__weights_that_do_not_fit_are_reported(change: Any, words: str, tmp_path: Path) -> None:
    torch.save(change(fresh(1).state_dict()), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=words):
        load_init_weights(fresh(2), BACKBONE, str(tmp_path / "weights.pth"))


def test_init_weights__missing_weights_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither torchvision nor timm, nor a finished run, nor a file"):
        load_init_weights(fresh(2), BACKBONE, str(tmp_path / "nowhere"))


def test_init_weights__exports_load_in_timm_and_torchvision(tmp_path: Path) -> None:
    import timm
    import torchvision
    from safetensors.torch import load_file

    network = fresh(1).eval()
    save_backbone(tmp_path, BACKBONE, network)
    theirs = [
        timm.create_model("resnet18", num_classes=5, checkpoint_path=str(tmp_path / "backbone.safetensors")),
        torchvision.models.resnet18(num_classes=5),
    ]
    theirs[1].load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for other in theirs:
            assert torch.allclose(other.eval()(image), network(image), atol=1e-5)


def test_init_weights__a_cosine_head_is_exported_and_loaded(tmp_path: Path) -> None:
    backbone = replace(BACKBONE, head="cosine", temperature=0.05)
    network = fresh(1, backbone).eval()
    save_backbone(tmp_path, backbone, network)
    described, read = load_backbone(tmp_path)
    assert (described.head, described.temperature, described.head_bias) == ("cosine", 0.05, False)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = read(image)
        assert torch.equal(logits, network(image)) and logits.abs().max() <= 20.01
