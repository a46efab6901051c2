"""Writes small trees in the published layouts of datasets, with real image files of a few pixels."""

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat


def image(path: Path, number: int = 0, image_format: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 8, 3), number * 37 % 256, dtype=np.uint8)
    Image.fromarray(pixels).save(path, image_format)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def mat(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, arrays)


def aircraft(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    lines(data / "variants.txt", "707-320", "727-200")
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{number}00000{i}" for i in range(4)]
        lines(
            data / f"images_variant_{split}.txt", *(f"{n} {('707-320', '727-200')[i % 2]}" for i, n in enumerate(names))
        )
        for i, name in enumerate(names):
            image(data / "images" / f"{name}.jpg", i)


def cars196(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "stanford_cars"
    mat(folder / "devkit" / "cars_meta.mat", class_names=np.array(["AM General Hummer", "Acura RL"], dtype=object))
    for split, path, count in (
        ("train", folder / "devkit" / "cars_train_annos.mat", 20),
        ("test", folder / "cars_test_annos_withlabels.mat", 6),
    ):
        kind = [("class", "O"), ("fname", "O")]
        rows = np.array([(i % 2 + 1, f"{i + 1:05d}.jpg") for i in range(count)], dtype=kind)
        mat(path, annotations=rows)
        for i in range(count):
            image(folder / f"cars_{split}" / f"{i + 1:05d}.jpg", i)


def dtd(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "dtd" / "dtd"
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{kind}/{kind}_{number}{i}.jpg" for kind in ("banded", "blotchy") for i in range(2)]
        lines(folder / "labels" / f"{split}1.txt", *names)
        for i, name in enumerate(names):
            image(folder / "images" / name, i)


def eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("AnnualCrop", "Forest"):
        for i in range(10):
            image(root / "eurosat" / "2750" / kind / f"{kind}_{i}.jpg", i)


def flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the dataset, and replaces the published files' md5 that torchvision checks."""
    from torchvision.datasets import Flowers102

    folder = root / "flowers-102"
    mat(folder / "imagelabels.mat", labels=np.array([1, 2] * 6))
    mat(folder / "setid.mat", trnid=np.arange(1, 5), valid=np.arange(5, 9), tstid=np.arange(9, 13))
    for i in range(1, 13):
        image(folder / "jpg" / f"image_{i:05d}.jpg", i)
    digests = {
        name: hashlib.md5((folder / f"{name}.mat").read_bytes()).hexdigest() for name in ("imagelabels", "setid")
    }
    known = {"label": ("imagelabels.mat", digests["imagelabels"]), "setid": ("setid.mat", digests["setid"])}
    monkeypatch.setattr(Flowers102, "_file_dict", {**Flowers102._file_dict, **known})


def pets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "oxford-iiit-pet"
    for split, count in (("trainval", 20), ("test", 4)):
        names = [(f"{('Abyssinian', 'basset_hound')[i % 2]}_{split}{i}", i % 2 + 1) for i in range(count)]
        lines(folder / "annotations" / f"{split}.txt", *(f"{name} {label} {label} 1" for name, label in names))
        for i, (name, _) in enumerate(names):
            # Some of the published files are GIFs with the suffix .jpg.
            image(folder / "images" / f"{name}.jpg", i, "GIF" if i == 3 else "JPEG")


def food101(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "food-101"
    for split, count in (("train", 10), ("test", 3)):
        names = {kind: [f"{kind}/{split}{i}" for i in range(count)] for kind in ("apple_pie", "waffles")}
        lines(folder / "meta" / f"{split}.json", json.dumps(names))
        for name in (name for some in names.values() for name in some):
            image(folder / "images" / f"{name}.jpg")


def sun397(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "SUN397"
    lines(folder / "ClassName.txt", "/a/abbey", "/a/apartment_building/outdoor")
    for split, count in (("Training_01", 10), ("Testing_01", 3)):
        names = [
            f"{kind}/sun_{split[:2]}{i}.jpg"
            for kind in ("/a/abbey", "/a/apartment_building/outdoor")
            for i in range(count)
        ]
        lines(root / "Partitions" / f"{split}.txt", *names)
        for name in names:
            image(folder / name.strip("/"))


def inaturalist(root: Path, monkeypatch: pytest.MonkeyPatch, year: str) -> None:
    for split, count in (("train", 10), ("val", 3)):
        content: dict[str, Any] = {"images": [], "annotations": []}
        for category in (0, 1):
            for i in range(count):
                number = len(content["images"]) + (1000 if split == "val" else 0)
                name = f"train_val{year}/Plantae/{category}/{split}{i}.jpg"
                content["images"].append({"id": number, "file_name": name})
                content["annotations"].append({"id": number, "image_id": number, "category_id": category})
                image(root / year / name.partition("/")[2])
        lines(root / f"{split}{year}.json", json.dumps(content))


def inaturalist_2018(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inaturalist(root, monkeypatch, "2018")


def inaturalist_2019(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inaturalist(root, monkeypatch, "2019")


def cog(root: Path) -> None:
    """Writes the lists as pickles of lists, dicts and numpy arrays."""
    import pickle

    levels = [[f"n{level}000000{i}" for i in range(2)] for level in range(1, 6)]
    splits = {}
    for wnid in (wnid for level in levels for wnid in level):
        names = {
            split: [f"{wnid}/{wnid}_{split}{i}.JPEG" for i in range(n)] for split, n in (("train", 10), ("test", 3))
        }
        splits[wnid] = {split: np.array([f"/{name}" for name in some]) for split, some in names.items()}
        for name in (name for some in names.values() for name in some):
            image(root / "imagenet_21k" / name)
    (root / "cog").mkdir(parents=True)
    (root / "cog" / "cog_levels_mapping_file.pkl").write_bytes(pickle.dumps(levels))
    (root / "cog" / "cog_concepts_split_file.pkl").write_bytes(pickle.dumps(splits))


def cog_l1(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cog(root)


def cog_in1k(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 10), ("val", 3)):
        for wnid in ("n01440764", "n01443537"):
            for i in range(count):
                image(root / "imagenet" / split / wnid / f"{wnid}_{i}.JPEG")


MAKERS = {
    maker.__name__: maker
    for maker in (
        aircraft, cars196, dtd, eurosat, flowers, pets, food101, sun397, inaturalist_2018, inaturalist_2019, cog_l1, cog_in1k,
    )
}  # fmt: skip


def class_folders(root: Path, names: list[str], count: int = 2) -> None:
    for number, name in enumerate(names):
        for i in range(count):
            image(root / name / f"{name}_{i}.JPEG", number)


def as_tar(folder: Path, path: Path, mode: Any = "w") -> None:
    with tarfile.open(path, mode) as tar:
        tar.add(folder, folder.name)


def as_zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for found in sorted(folder.rglob("*")):
            file.write(found, Path(folder.name) / found.relative_to(folder))
            file.writestr(f"__MACOSX/._{found.name}", b"junk")
