"""Whatever is evaluated by name: our runs, torchvision's and timm's networks, state dicts; hostile files run nothing."""

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
from builders.format.errors import UserError
from fakeit_eval.backbones import FileNetwork, open_subject
from fakeit_eval.features import Loading, class_scores, extract
from fakeit_eval.pictures.arrays import open_arrays

ARCH = "torchvision/resnet18"
NETWORK = FileNetwork(arch=ARCH)


def small_pictures() -> Any:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    return open_arrays(pictures, np.zeros(5, dtype=np.int64), ("n01440764",), name="noise")


def released(num_classes: int = 100) -> dict[str, torch.Tensor]:
    """As the paper's checkpoints: a torchvision network whose classifier has no bias."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=num_classes)
    network.fc = torch.nn.Linear(512, num_classes, bias=False)
    return dict(network.state_dict())


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3}]
)
def test_backbones__a_released_checkpoint_is_read(wrap: Any, tmp_path: Path) -> None:
    weights = released()
    torch.save(wrap(weights), tmp_path / "imagenet_100_sd.pth")
    subject = open_subject(str(tmp_path / "imagenet_100_sd.pth"), tmp_path, NETWORK)
    assert subject.backbone.classes == tuple(sorted(read_imagenet100_wnids()))
    pictures = small_pictures()
    features = extract(subject, pictures, Loading(cache=tmp_path))
    assert features.shape == (5, 512)
    expected = features[:] @ weights["fc.weight"].numpy().T
    assert np.allclose(class_scores(subject, features), expected, atol=1e-4)


def test_backbones__features_are_torchvisions_own(tmp_path: Path) -> None:
    """The paper's preprocessing and a plain forward, written by hand."""
    weights = released()
    save_file(weights, tmp_path / "net.safetensors")
    subject = open_subject(str(tmp_path / "net.safetensors"), tmp_path, NETWORK)
    pictures = small_pictures()
    found = extract(subject, pictures, Loading(cache=tmp_path, batch_size=2))
    network = torchvision.models.resnet18(num_classes=100)
    network.load_state_dict(weights, strict=False)
    network.fc = torch.nn.Identity()
    resized = [
        torchvision.transforms.functional.resize(
            torchvision.transforms.functional.to_pil_image(pictures.decoded(number)[0]),
            224,
            torchvision.transforms.InterpolationMode.BICUBIC,
        )
        for number in range(5)
    ]
    pixels = torch.stack([torchvision.transforms.functional.to_tensor(picture) for picture in resized])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    with torch.inference_mode():
        expected = network.eval()(torchvision.transforms.functional.normalize(pixels, mean, std))
    assert np.allclose(found[:], expected.numpy(), atol=1e-4)


def test_backbones__a_checkpoint_with_a_cosine_classifier(tmp_path: Path) -> None:
    """As torch computes it: the cosine of feature and class vector, over the temperature."""
    weights = released()
    torch.save(weights, tmp_path / "net.pth")
    network = FileNetwork(arch=ARCH, head="cosine", temperature=0.05)
    subject = open_subject(str(tmp_path / "net.pth"), tmp_path, network)
    features = extract(subject, small_pictures(), Loading(cache=tmp_path))
    expected = torch.nn.functional.cosine_similarity(
        torch.from_numpy(features[:])[:, None], weights["fc.weight"][None], dim=-1
    )
    assert np.allclose(class_scores(subject, features), expected.numpy() / 0.05, atol=1e-4)
    with pytest.raises(UserError, match="unknown head 'round'; choose from linear, cosine"):
        FileNetwork(head="round")
    torch.save({**weights, "fc.bias": torch.zeros(100)}, tmp_path / "biased.pth")
    with pytest.raises(UserError, match="has a classifier with a bias"):
        open_subject(str(tmp_path / "biased.pth"), tmp_path, network)


def test_backbones__classes_go_by_the_number_of_outputs(tmp_path: Path) -> None:
    for num_classes, classes in ((1000, tuple(read_parents())), (7, tuple(f"output_{n}" for n in range(7)))):
        torch.save(released(num_classes), tmp_path / "net.pth")
        assert open_subject(str(tmp_path / "net.pth"), tmp_path, NETWORK).backbone.classes == classes


def test_backbones__an_encoder_without_classifier_has_features(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in released().items() if not name.startswith("fc.")}
    torch.save(weights, tmp_path / "net.pth")
    subject = open_subject(str(tmp_path / "net.pth"), tmp_path, NETWORK)
    assert subject.backbone.classes == ()
    assert extract(subject, small_pictures(), Loading(cache=tmp_path)).shape == (5, 512)


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's download folder with weights in it, as if they had been fetched before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    path = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_backbones__torchvisions_networks_by_name(downloaded: Path, tmp_path: Path) -> None:
    for spec in (ARCH, f"{ARCH}@IMAGENET1K_V1"):
        subject = open_subject(spec, tmp_path)
        expected = torch.load(downloaded, weights_only=True)["fc.weight"]
        assert torch.equal(subject.network.fc.weight, expected)  # type: ignore[union-attr, arg-type]
        assert subject.backbone.classes == tuple(read_parents()) and subject.backbone.feature_size == 512


def test_backbones__timms_networks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    subject = open_subject("timm/resnet18.a1_in1k", tmp_path)
    assert subject.backbone.classes == tuple(read_parents()) and subject.backbone.mean == tuple(entry.mean)
    assert extract(subject, small_pictures(), Loading(cache=tmp_path)).shape == (5, 512)


def test_backbones__results_go_to_a_folder_of_their_own(downloaded: Path) -> None:
    assert open_subject(f"{ARCH}@IMAGENET1K_V1").out == Path("evaluations/torchvision-resnet18-IMAGENET1K_V1")


def test_backbones__weights_have_an_identity(tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "a.pth")
    other = released()
    other["fc.weight"][0, 0] += 1
    torch.save(other, tmp_path / "b.pth")
    first, again, second = (
        open_subject(str(tmp_path / name), tmp_path, NETWORK).sha256 for name in ("a.pth", "a.pth", "b.pth")
    )
    assert first == again != second and len(first) == len(hashlib.sha256().hexdigest())


def test_backbones__torchvisions_pixels_are_those_of_the_weights() -> None:
    from builders.format.backbone import _torchvision_pixels

    assert _torchvision_pixels("torchvision", "efficientnet_v2_l", "")["mean"] == [0.5, 0.5, 0.5]
    assert _torchvision_pixels("torchvision", "resnet50", "IMAGENET1K_V1")["std"] == [0.229, 0.224, 0.225]


def test_backbones__timms_weights_may_be_named_after_an_at(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked: list[str] = []

    def create(name: str, **_: Any) -> Any:
        asked.append(name)
        raise RuntimeError("no network")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(UserError, match=r"timm cannot build 'resnet18\.tv_in1k'"):
        open_subject("timm/resnet18@tv_in1k")
    assert asked == ["resnet18.tv_in1k"]


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
def test_backbones__hostile_files_are_refused_in_one_sentence_and_nothing_runs(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as tensors alone|holds no") as told:
        open_subject(name, network=NETWORK)
    assert "\n" not in str(told.value) and os.listdir() == [name]


def test_backbones__a_hostile_zip_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": released(), "extra": Runs()}, "net.pth")
    with pytest.raises(UserError, match="cannot be read as tensors alone"):
        open_subject("net.pth", network=NETWORK)
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
def test_backbones__mistakes_are_told(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_subject(spec)


def test_backbones__weights_of_another_network_are_told(tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net.pth' does not fit torchvision/resnet50: it lacks .*--arch"):
        open_subject(str(tmp_path / "net.pth"), tmp_path)
