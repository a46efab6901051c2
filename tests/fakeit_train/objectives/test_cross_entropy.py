import torch
import torch.nn.functional as F

from fakeit_train.objectives.cross_entropy import multi_crop_cross_entropy


def test_cross_entropy__every_crop_weighs_the_same() -> None:
    torch.manual_seed(0)
    logits, labels = [torch.randn(5, 1, 7), torch.randn(5, 8, 7)], torch.tensor([0, 3, 6, 2, 1])
    slow = sum(
        F.cross_entropy(crops_of_kind[image, crop], labels[image]) / 9
        for crops_of_kind in logits
        for image in range(5)
        for crop in range(crops_of_kind.shape[1])
    )
    assert torch.allclose(multi_crop_cross_entropy(logits, labels), torch.as_tensor(slow))


def test_cross_entropy__slices_add_up() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3, 4), torch.randint(4, (7,))
    pieces = multi_crop_cross_entropy([logits[:2]], labels[:2]) + multi_crop_cross_entropy([logits[2:]], labels[2:])
    assert torch.allclose(pieces, multi_crop_cross_entropy([logits], labels))


def test_cross_entropy__kinds_have_the_configured_weights() -> None:
    torch.manual_seed(0)
    logits, labels = [torch.randn(5, 1, 7), torch.randn(5, 8, 7)], torch.tensor([0, 3, 6, 2, 1])
    alone = [multi_crop_cross_entropy([crops_of_kind], labels) for crops_of_kind in logits]
    weighted = multi_crop_cross_entropy(logits, labels, crop_weights=(4.0, 0.5))
    assert torch.allclose(weighted, (alone[0] * 4 * 1 + alone[1] * 0.5 * 8) / (4 * 1 + 0.5 * 8))
    assert torch.allclose(multi_crop_cross_entropy(logits, labels, crop_weights=(1.0, 0.0)), alone[0])


def test_cross_entropy__smoothing_spreads_the_target() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 1, 7), torch.tensor([0, 3, 6, 2, 1])
    target = F.one_hot(labels, 7) * 0.9 + 0.1 / 7
    slow = -(target * F.log_softmax(logits[:, 0], dim=1)).sum()
    assert torch.allclose(multi_crop_cross_entropy([logits], labels, label_smoothing=0.1), slow)
