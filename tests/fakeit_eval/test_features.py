from pathlib import Path

import numpy as np
import torch

from builders.format.backbone import Backbone, build_network, head_of
from builders.format.images import decode_image
from builders.format.manifest import Manifest
from builders.format.open_clone import open_clone
from builders.format.squares import middle_square
from fakeit_eval.features import extract


def test_features__are_what_the_classifier_sees(finished: tuple[Path, Manifest]) -> None:
    torch.manual_seed(0)
    clone = open_clone(finished[0])
    backbone = Backbone(library="torchvision", arch="resnet18", input_size=32, classes=tuple("abcd"), head_bias=True)
    network = build_network(backbone)
    found = extract(network, backbone, clone, batch_size=7, num_workers=1)
    assert found.features.shape == (len(clone), 512) and found.logits.shape == (len(clone), 4)
    assert found.labels.tolist() == [sample.label for sample in clone]
    head = head_of(network)[1]
    expected = found.features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert np.allclose(found.logits, expected, atol=1e-4)


def test_features__preprocessing_is_the_middle_of_the_shortest_side(finished: tuple[Path, Manifest]) -> None:
    picture = decode_image(open_clone(finished[0])[0].picture)
    assert (middle_square(picture, 32) == picture).all()
    wide = np.concatenate([np.zeros_like(picture), picture, np.zeros_like(picture)], axis=1)
    assert (middle_square(wide, 32) == picture).all()
    assert middle_square(wide, 50).shape == (50, 50, 3)
