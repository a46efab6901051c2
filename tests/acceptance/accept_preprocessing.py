"""Compares test-time preprocessing with torchvision's: every pixel at 60 sizes, and every bit of ResNet50 features.

python -m tests.acceptance.accept_preprocessing        # half a minute
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models import resnet50
from torchvision.transforms import Compose, Normalize, ToTensor

from builders.image_sets.files import open_folder
from builders.images.center_crop import center_crop
from builders.networks.backbone import Backbone, build_network
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.models import Model
from tests.acceptance.record import record
from tests.builders.images.test_center_crop import SIZES, photograph, reference
from tests.fakeit_eval.features.test_extract import photographs

LONG = [(1000, 240), (240, 1000), (333, 80), (2000, 31)]


def difference(size: tuple[int, int]) -> int:
    """Returns the largest difference from torchvision in gray levels, at an input size of 224."""
    pixels = photograph(*size)
    expected = np.asarray(reference(224)(Image.fromarray(pixels)), dtype=int)
    return int(np.abs(center_crop(pixels, 224) - expected).max())


def num_different_features() -> tuple[int, int]:
    """Returns the number of feature values that differ from plain torchvision's, and the number of all values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = photographs(folder / "images")
        torch.manual_seed(0)
        backbone = Backbone(library="torchvision", arch="resnet50", classes=("a", "b"), feature_size=2048)
        network = build_network(backbone).eval()
        model = Model("resnet50", backbone, "seed 0", folder, lambda: network)
        found = extract(model, open_folder(str(folder / "images")), Loading(cache=folder, batch_size=4))[:]
        plain = resnet50()
        plain.fc = torch.nn.Identity()  # type: ignore[assignment]
        plain.load_state_dict({k: value for k, value in network.state_dict().items() if not k.startswith("fc.")})
        normalize = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        transform = Compose([reference(224), ToTensor(), normalize])
        pixels = [transform(Image.open(path)) for path in paths]
        with torch.inference_mode():
            expected = [plain.eval()(torch.stack(pixels[start : start + 4])) for start in range(0, len(pixels), 4)]
    return int((found != torch.cat(expected).numpy()).sum()), found.size


def main() -> None:
    sizes = sorted({oriented for size in SIZES for oriented in (size, size[::-1])})
    found = {size: difference(size) for size in sizes}
    lines = [
        "Largest difference from torchvision's Resize(224, BICUBIC) and CenterCrop(224) on a photograph, in gray",
        f"levels, at {len(sizes)} sizes (width x height): at most {max(found.values())}.",
        "",
        ", ".join(f"{width}x{height}: {value}" for (width, height), value in found.items()),
        "",
        "Above an aspect ratio of 4:1, where only the middle is resized: "
        + ", ".join(f"{width}x{height}: {difference((width, height))}" for width, height in LONG),
        "",
        "Features of a torchvision ResNet50 (random weights, seed 0) on eight photographs of scikit-image and "
        "scikit-learn: {} of {:,} values differ from plain torchvision's.".format(*num_different_features()),
    ]
    record("preprocessing", "Test-time preprocessing compared with torchvision's", lines)


if __name__ == "__main__":
    main()
