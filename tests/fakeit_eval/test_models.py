"""Opens models of each kind: networks of torchvision and timm, and state dicts. Hostile files run no code."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from builders.classes.imagenet import read_imagenet100_wnids, read_parents
from builders.errors import UserError
from builders.image_sets.arrays import open_arrays
from fakeit_eval.features.extract import Loading, class_scores, extract
from fakeit_eval.models import FileNetwork, open_model

ARCH = "torchvision/resnet18"
NETWORK = FileNetwork(arch=ARCH)


def small_images() -> Any:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    return open_arrays(images, np.zeros(5, dtype=np.int64), ("n01440764",), name="noise")


def released(num_classes: int = 100) -> dict[str, torch.Tensor]:
    """A state dict like those of the paper's checkpoints: of a torchvision network whose classifier has no bias."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=num_classes)
    network.fc = torch.nn.Linear(512, num_classes, bias=False)
    return dict(network.state_dict())


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3}]
)
def test_models__a_released_checkpoint_is_read(wrap: Any, tmp_path: Path) -> None:
    weights = released()
    torch.save(wrap(weights), tmp_path / "imagenet_100_sd.pth")
    model = open_model(str(tmp_path / "imagenet_100_sd.pth"), tmp_path, NETWORK)
    assert model.backbone.classes == tuple(sorted(read_imagenet100_wnids()))
    images = small_images()
    features = extract(model, images, Loading(cache=tmp_path))
    assert features.shape == (5, 512)
    expected = features[:] @ weights["fc.weight"].numpy().T
    assert np.allclose(class_scores(model, features), expected, atol=1e-4)


def test_models__features_are_those_of_plain_torchvision(tmp_path: Path) -> None:
    """The reference is the paper's preprocessing and a forward pass, written by hand with torchvision."""
    weights = released()
    save_file(weights, tmp_path / "net.safetensors")
    model = open_model(str(tmp_path / "net.safetensors"), tmp_path, NETWORK)
    images = small_images()
    found = extract(model, images, Loading(cache=tmp_path, batch_size=2))
    network = torchvision.models.resnet18(num_classes=100)
    network.load_state_dict(weights, strict=False)
    network.fc = torch.nn.Identity()
    resized = [
        torchvision.transforms.functional.resize(
            torchvision.transforms.functional.to_pil_image(images.decoded(number)[0]),
            224,
            torchvision.transforms.InterpolationMode.BICUBIC,
        )
        for number in range(5)
    ]
    pixels = torch.stack([torchvision.transforms.functional.to_tensor(image) for image in resized])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    with torch.inference_mode():
        expected = network.eval()(torchvision.transforms.functional.normalize(pixels, mean, std))
    assert np.allclose(found[:], expected.numpy(), atol=1e-4)


def test_models__a_checkpoint_with_a_cosine_classifier_is_read(tmp_path: Path) -> None:
    """Its logits are the cosine of feature and class vector by torch, divided by the temperature."""
    weights = released()
    torch.save(weights, tmp_path / "net.pth")
    network = FileNetwork(arch=ARCH, head="cosine", temperature=0.05)
    model = open_model(str(tmp_path / "net.pth"), tmp_path, network)
    features = extract(model, small_images(), Loading(cache=tmp_path))
    expected = torch.nn.functional.cosine_similarity(
        torch.from_numpy(features[:])[:, None], weights["fc.weight"][None], dim=-1
    )
    assert np.allclose(class_scores(model, features), expected.numpy() / 0.05, atol=1e-4)
    with pytest.raises(UserError, match="unknown head 'round'; choose from linear, cosine"):
        FileNetwork(head="round")
    torch.save({**weights, "fc.bias": torch.zeros(100)}, tmp_path / "biased.pth")
    with pytest.raises(UserError, match="has a classifier with a bias"):
        open_model(str(tmp_path / "biased.pth"), tmp_path, network)


def test_models__classes_follow_from_the_number_of_outputs(tmp_path: Path) -> None:
    for num_classes, classes in ((1000, tuple(read_parents())), (7, tuple(f"output_{n}" for n in range(7)))):
        torch.save(released(num_classes), tmp_path / "net.pth")
        assert open_model(str(tmp_path / "net.pth"), tmp_path, NETWORK).backbone.classes == classes


def test_models__an_encoder_without_classifier_has_features(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in released().items() if not name.startswith("fc.")}
    torch.save(weights, tmp_path / "net.pth")
    model = open_model(str(tmp_path / "net.pth"), tmp_path, NETWORK)
    assert model.backbone.classes == ()
    assert extract(model, small_images(), Loading(cache=tmp_path)).shape == (5, 512)


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts weights into torchvision's download folder, as if they had been downloaded before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    path = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_models__torchvisions_networks_by_name(downloaded: Path, tmp_path: Path) -> None:
    for spec in (ARCH, f"{ARCH}@IMAGENET1K_V1"):
        model = open_model(spec, tmp_path)
        expected = torch.load(downloaded, weights_only=True)["fc.weight"]
        assert torch.equal(model.network.fc.weight, expected)  # type: ignore[union-attr, arg-type]
        assert model.backbone.classes == tuple(read_parents()) and model.backbone.feature_size == 512


def test_models__timms_networks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    torch.manual_seed(0)
    plain = timm.create_model("resnet18.a1_in1k")
    (tmp_path / "hub").mkdir()
    save_file(plain.state_dict(), tmp_path / "hub" / "model.safetensors")
    entry = timm.models.get_pretrained_cfg("resnet18.a1_in1k")
    import timm.models._registry as registry

    monkeypatch.setitem(
        registry._model_pretrained_cfgs,
        "resnet18.a1_in1k",
        type(entry)(
            **{**vars(entry), "file": str(tmp_path / "hub" / "model.safetensors"), "hf_hub_id": None, "url": ""}
        ),
    )
    model = open_model("timm/resnet18.a1_in1k", tmp_path)
    assert model.backbone.classes == tuple(read_parents()) and model.backbone.mean == tuple(entry.mean)
    assert extract(model, small_images(), Loading(cache=tmp_path)).shape == (5, 512)


def test_models__results_go_to_a_folder_of_their_own(downloaded: Path) -> None:
    assert open_model(f"{ARCH}@IMAGENET1K_V1").out == Path("evaluations/torchvision-resnet18-IMAGENET1K_V1")


def test_models__the_digest_identifies_the_weights(tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "a.pth")
    other = released()
    other["fc.weight"][0, 0] += 1
    torch.save(other, tmp_path / "b.pth")
    first, again, second = (
        open_model(str(tmp_path / name), tmp_path, NETWORK).sha256 for name in ("a.pth", "a.pth", "b.pth")
    )
    assert first == again != second and len(first) == len(hashlib.sha256().hexdigest())


def test_models__torchvisions_normalization_is_that_of_the_weights() -> None:
    from builders.networks.backbone import _torchvision_pixels

    assert _torchvision_pixels("torchvision", "efficientnet_v2_l", "")["mean"] == [0.5, 0.5, 0.5]
    assert _torchvision_pixels("torchvision", "resnet50", "IMAGENET1K_V1")["std"] == [0.229, 0.224, 0.225]


def test_models__timms_weights_may_be_named_after_an_at(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    queries: list[str] = []

    def create(name: str, **_: Any) -> Any:
        queries.append(name)
        raise RuntimeError("no network")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(UserError, match=r"timm cannot build 'resnet18\.tv_in1k'"):
        open_model("timm/resnet18@tv_in1k")
    assert queries == ["resnet18.tv_in1k"]


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch HACKED",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Runs()),
        pickle.dumps({"state_dict": {"fc.weight": Runs()}}),
        b"cos\nsystem\n(S'touch HACKED'\ntR.",
        b"PK\x03\x04 not a zip",
        b"",
    ],
)
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.pkl"])
def test_models__hostile_files_are_refused_in_one_sentence_and_nothing_runs(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as tensors alone|holds no") as message:
        open_model(name, network=NETWORK)
    assert "\n" not in str(message.value) and os.listdir() == [name]


def test_models__a_hostile_zip_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": released(), "extra": Runs()}, "net.pth")
    with pytest.raises(UserError, match="cannot be read as tensors alone"):
        open_model("net.pth", network=NETWORK)
    assert os.listdir() == ["net.pth"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere", "no trained backbone in 'nowhere'"),
        ("torchvision/resnet1", "torchvision cannot build 'resnet1'"),
        ("torchvision/resnet18@OTHER", "torchvision cannot build 'resnet18'"),
        ("timm/nothing", "timm cannot build 'nothing'"),
    ],
)
def test_models__mistakes_are_reported(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_model(spec)


def test_models__weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net.pth' does not fit torchvision/resnet50: it lacks .*--arch"):
        open_model(str(tmp_path / "net.pth"), tmp_path)
