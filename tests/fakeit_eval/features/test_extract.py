import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.image_sets.base import ImageSet
from builders.image_sets.clones import open_clone_images
from builders.image_sets.files import open_folder
from builders.images.read import AS_PUBLISHED, ReadImage, decode_sample
from builders.networks.backbone import Backbone, build_network, save_backbone
from builders.networks.heads import heads_of
from fakeit_eval.cli.main import main
from fakeit_eval.features.extract import Loading, class_scores, extract, extract_scores
from fakeit_eval.models import Model, open_model
from tests.builders.networks.test_heads import FAMILIES
from tests.in_process import call
from tests.mutants import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

BACKBONE = Backbone(
    library="torchvision", arch="resnet18", input_size=32, classes=tuple("abcd"), head_bias=True, feature_size=512
)


def fresh_model(out: Path, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    network = build_network(BACKBONE)
    return Model("fresh", BACKBONE, f"seed {seed}", out, lambda: network)


def test_extract__features_are_the_classifiers_input(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    images, model = open_clone_images(str(finished[0])), fresh_model(tmp_path)
    found = extract(model, images, Loading(batch_size=7, workers=1, cache=tmp_path))
    logits = class_scores(model, found)
    assert found.shape == (len(images), 512) and logits.shape == (len(images), 4)
    assert images.labels.tolist() == [sample.label for sample in open_clone(finished[0])]
    head = next(iter(heads_of(model.network).values()))
    expected = found[:] @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert np.allclose(logits, expected, atol=1e-4)


def test_extract__features_are_read_by_slice_and_by_row(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    found = extract(fresh_model(tmp_path), open_clone_images(str(finished[0])), Loading(cache=tmp_path))
    whole = np.load(found.path)
    assert np.array_equal(found[:], whole) and np.array_equal(found[3:9], whole[3:9])
    rows = np.array([5, 0, 60])
    assert np.array_equal(found[rows], whole[rows])


def test_extract__features_are_cached_until_anything_changes(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    images, loading = open_clone_images(str(finished[0])), Loading(cache=tmp_path)
    first = extract(fresh_model(tmp_path), images, loading)

    def read(number: int, policy: str) -> ReadImage:
        raise AssertionError("an image was read again")

    unreadable = replace(images, read=read)
    assert extract(fresh_model(tmp_path), unreadable, loading).path == first.path
    assert extract(fresh_model(tmp_path, seed=1), images, loading).path != first.path
    some = images.subset(np.arange(10))
    assert extract(fresh_model(tmp_path), some, loading).path != first.path
    # Copying a data set to another disk changes the times of its files.
    assert extract(fresh_model(tmp_path), replace(images, state="touched"), loading).path == first.path
    assert extract(fresh_model(tmp_path), replace(images, policy=AS_PUBLISHED), loading).path != first.path


def test_extract__damaged_features_are_extracted_again(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    images, loading = open_clone_images(str(finished[0])), Loading(cache=tmp_path)
    first = extract(fresh_model(tmp_path), images, loading)
    whole = first[:]
    first.path.write_bytes(first.path.read_bytes()[:-100])
    assert np.array_equal(extract(fresh_model(tmp_path), images, loading)[:], whole)


def test_extract__a_broken_image_is_reported(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    images = open_clone_images(str(finished[0]))

    def read(number: int, policy: str) -> ReadImage:
        if number == 50:
            raise UserError("image 50 is broken")
        return images.read(number, policy)

    with pytest.raises(UserError, match="image 50 is broken"):
        extract(fresh_model(tmp_path), replace(images, read=read), Loading(cache=tmp_path, batch_size=10))


KILLED = """
import sys, os, signal
from pathlib import Path
from dataclasses import replace
from builders.image_sets.base import ImageSet
from builders.image_sets.clones import open_clone_images
from fakeit_eval.features.extract import Loading, extract
from tests.fakeit_eval.features.test_extract import fresh_model
images = open_clone_images(sys.argv[1])
def read(number, policy):
    if number == 45:
        os.kill(os.getpid(), signal.SIGKILL)
    return images.read(number, policy)
cache = Path(sys.argv[2])
extract(fresh_model(cache), replace(images, read=read), Loading(batch_size=10, workers=0, cache=cache))
"""


def test_extract__features_of_a_killed_extraction_are_extracted_again(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    died = subprocess.run([sys.executable, "-c", KILLED, str(finished[0]), str(cache)], check=False)
    assert died.returncode == -signal.SIGKILL
    (begun,) = cache.glob("features/*/features.npy")
    images = open_clone_images(str(finished[0]))
    again = extract(fresh_model(tmp_path), images, Loading(batch_size=10, cache=cache))
    whole = extract(fresh_model(tmp_path), images, Loading(batch_size=10, cache=tmp_path / "other"))
    assert np.array_equal(again[:], whole[:]) and again.path == begun


RANKS = """
import sys
from pathlib import Path
from builders.image_sets.base import ImageSet
from builders.image_sets.clones import open_clone_images
from fakeit_eval import ranks
from fakeit_eval.features.extract import Loading, extract
from tests.fakeit_eval.features.test_extract import counted, fresh_model
cache, reads = Path(sys.argv[2]), []
with ranks.joined():
    images = counted(open_clone_images(sys.argv[1]), reads)
    found = extract(fresh_model(cache), images, Loading(batch_size=10, workers=0, cache=cache))
    (cache / f"rank-{ranks.RANK}").write_text(f"{len(found)} {reads}")
"""


def counted(images: ImageSet, reads: list[int]) -> ImageSet:
    """Returns images that note which of them are read."""

    def read(number: int, policy: str) -> ReadImage:
        reads.append(number)
        return images.read(number, policy)

    return replace(images, read=read)


def test_extract__each_rank_extracts_a_slice_of_one_file(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    cache, images = tmp_path / "cache", open_clone_images(str(finished[0]))
    (tmp_path / "ranks.py").write_text(RANKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launch, str(tmp_path / "ranks.py"), str(finished[0]), str(cache)], check=True, env=ENVIRONMENT)
    reads: list[int] = []
    found = extract(fresh_model(tmp_path), counted(images, reads), Loading(batch_size=10, workers=0, cache=cache))
    whole = extract(fresh_model(tmp_path), images, Loading(batch_size=10, cache=tmp_path / "other"))
    assert not reads and np.allclose(found[:], whole[:], atol=1e-5)
    half = len(images) // 2
    assert (cache / "rank-0").read_text() == f"{len(images)} {list(range(half))}"
    assert (cache / "rank-1").read_text() == f"{len(images)} {list(range(half, len(images)))}"


@pytest.mark.long
def test_extract__torchrun_probes_like_one_process(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_backbone(tmp_path / "run", BACKBONE, fresh_model(tmp_path).network)
    arguments = ["probe", str(tmp_path / "run"), "--data", str(finished[0]), "--trials", "2", "--batch-size", "8"]
    arguments += ["--probe", "k_nearest_neighbors", "--any-count"]
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    outputs = []
    for number, module in enumerate([["fakeit_eval"], [*launch, "fakeit_eval"]]):
        more = ["--cache", str(tmp_path / f"cache-{number}"), "--out", str(tmp_path / f"out-{number}")]
        command = [sys.executable, "-m", *module, *arguments, *more]
        outputs.append(subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE).stdout)
    alone, together = (json.loads(next((tmp_path / f"out-{n}").rglob("*.json")).read_text()) for n in range(2))
    assert alone["value"] == together["value"] and len(outputs[0].splitlines()) == len(outputs[1].splitlines())


def test_extract__bfloat16_has_a_key_of_its_own_and_is_close(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    images, model = open_clone_images(str(finished[0])), fresh_model(tmp_path)
    exact = extract(model, images, Loading(cache=tmp_path))
    close = extract(model, images, Loading(cache=tmp_path, precision="bfloat16"))
    assert exact.path != close.path
    relative = np.abs(exact[:] - close[:]).max() / np.abs(exact[:]).max()
    assert 0 < relative < 0.05
    with pytest.raises(UserError, match="unknown --precision 'int8'; choose from float32, bfloat16"):
        Loading(precision="int8")


SMALL_MEMORY = 'mount -t tmpfs -o size=60k tmpfs /dev/shm && exec "$@"'


def test_extract__too_little_shared_memory_is_one_sentence(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    """A container's /dev/shm has 64 MiB by default; here a mount namespace has a smaller one."""
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_MEMORY, "sh"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounts")
    (tmp_path / "run").mkdir()
    save_backbone(tmp_path / "run", BACKBONE, fresh_model(tmp_path).network)
    evaluated = ["-m", "fakeit_eval", "analyze", str(tmp_path / "run"), "--data", str(finished[0]), "--workers", "2"]
    trained = ["-m", "fakeit_train", "digits", "--data", str(finished[0]), "--out", str(tmp_path / "trained")]
    for arguments in ([*evaluated, "--cache", str(tmp_path / "cache")], [*trained, "--set", "data.num_workers=2"]):
        found = subprocess.run(
            [*unshare, sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert found.returncode == 2, found.stderr
        assert "of shared memory, and /dev/shm has 0.1 MiB; give fewer" in found.stderr.splitlines()[-1]
        assert "Traceback" not in found.stderr


def test_extract__a_network_without_a_plain_classifier_is_refused(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    model = fresh_model(tmp_path)
    network = torch.nn.Sequential(copy.deepcopy(model.network), torch.nn.Softmax(dim=1))
    odd = replace(model, load=lambda: network)
    with pytest.raises(UserError, match="does not end in one linear classifier"):
        extract(odd, open_clone_images(str(finished[0])), Loading(cache=tmp_path))


@pytest.mark.parametrize("text", ['{"num_cut": "5"}', '{"num_cut": Infinity}', "[]", "{"])
def test_extract__a_wrong_mark_is_ignored(text: str, finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    images, loading = open_clone_images(str(finished[0])), Loading(cache=tmp_path)
    first = extract(fresh_model(tmp_path), images, loading)
    whole = first[:]
    (first.path.parent / "finished.json").write_text(text)
    assert np.allclose(extract(fresh_model(tmp_path), images, loading)[:], whole, atol=1e-5)


def test_extract__features_that_are_not_finite_are_refused(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    model = fresh_model(tmp_path)
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="features that are NaN or infinite"):
        extract(model, open_clone_images(str(finished[0])), Loading(cache=tmp_path))


def photographs(folder: Path) -> list[Path]:
    """Writes the photographs that ship with scikit-image and scikit-learn as files in one class folder."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "coffee", "cat", "camera", "coins", "page")
    found = [*load_sample_images().images, *(getattr(skimage.data, name)() for name in names)]
    (folder / "photograph").mkdir(parents=True)
    paths = [folder / "photograph" / f"{number}.png" for number in range(len(found))]
    for path, pixels in zip(paths, found, strict=True):
        Image.fromarray(pixels).convert("RGB").save(path)
    return paths


def test_extract__resnet50_features_are_bit_equal_to_plain_torchvision(tmp_path: Path) -> None:
    from torchvision.models import resnet50
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    paths = photographs(tmp_path / "images")
    torch.manual_seed(0)
    backbone = Backbone(library="torchvision", arch="resnet50", classes=("a", "b"), feature_size=2048)
    network = build_network(backbone).eval()
    model = Model("resnet50", backbone, "seed 0", tmp_path, lambda: network)
    found = extract(model, open_folder(str(tmp_path / "images")), Loading(cache=tmp_path, batch_size=4))
    plain = resnet50()
    plain.fc = torch.nn.Identity()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if not name.startswith("fc.")})
    transform = Compose([
        Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(),
        Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    pixels = [transform(Image.open(path)) for path in paths]
    with torch.inference_mode():
        expected = [plain.eval()(torch.stack(pixels[start : start + 4])).numpy() for start in range(0, len(pixels), 4)]
    assert np.array_equal(found[:], np.concatenate(expected))


def test_extract__truncated_files_are_read_as_published_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(tmp_path / "images" / "a" / f"{number}.jpg")
    path = tmp_path / "images" / "a" / "1.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    images, model = open_folder(str(tmp_path / "images")), fresh_model(tmp_path)
    with pytest.raises(
        UserError, match=r"1\.jpg' cannot be read \(JPEG image does not decode: image file is truncated"
    ):
        extract(model, images, Loading(cache=tmp_path))
    found = extract(model, replace(images, policy=AS_PUBLISHED), Loading(cache=tmp_path, batch_size=2))
    assert found.num_cut == 1
    assert extract(model, replace(images, policy=AS_PUBLISHED), Loading(cache=tmp_path)).num_cut == 1
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(path) as image:
        assert (np.asarray(image.convert("RGB")) == images.read(1, AS_PUBLISHED).pixels).all()


@pytest.mark.parametrize("is_encoder", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_extract__twelve_families_have_features_and_those_with_a_classifier_scores(
    name: str, is_encoder: bool, finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = FAMILIES[name].backbone(*(() if is_encoder else ("a", "b", "c")))
    save_backbone(tmp_path, backbone, build_network(backbone))
    model, images = open_model(str(tmp_path)), open_clone_images(str(finished[0]))
    found = extract(model, images, Loading(cache=tmp_path))
    assert found.shape == (len(images), model.backbone.feature_size) and np.isfinite(found[:]).all()
    if not is_encoder:
        _, scores = extract_scores(model, images, Loading(cache=tmp_path))
        crop = decode_sample("", open_clone(finished[0])[0].image)
        pixels = (torch.tensor(np.array(Image.fromarray(crop).resize((32, 32)))).permute(2, 0, 1) / 255)[None]
        mean, std = (torch.tensor(values)[:, None, None] for values in (model.backbone.mean, model.backbone.std))
        with torch.inference_mode():
            expected = model.network.cpu()((pixels - mean) / std)
        assert np.allclose(scores[:1], expected, atol=0.02 if crop.shape[0] != 32 else 1e-3)


def test_extract__an_encoder_is_probed_and_analyzed_but_not_tested(
    finished: tuple[Path, Manifest], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = FAMILIES["MAE"].backbone()
    save_backbone(tmp_path, backbone, build_network(backbone))
    common = ("--cache", tmp_path / "cache")
    ended = call(main, "test", tmp_path, "--data", finished[0], *common)
    assert (
        ended.returncode == 2 and "is an encoder without a classifier to test; use 'fakeit-eval probe'" in ended.stderr
    )
    images = ("--train", finished[0], "--test", finished[0])
    probe = ("probe", tmp_path, *images, "--probe", "k_nearest_neighbors", "--trials", 2)
    for words in (probe, ("analyze", tmp_path, "--data", finished[0])):
        ended = call(main, *words, *common)
        assert ended.returncode == 0, ended.stderr
