import torch
import torch.nn.functional as F

from fakeit_train.losses import multi_crop_cross_entropy


def test_losses__every_crop_weighs_the_same() -> None:
    torch.manual_seed(0)
    logits, labels = [torch.randn(5, 1, 7), torch.randn(5, 8, 7)], torch.tensor([0, 3, 6, 2, 1])
    slow = sum(
        F.cross_entropy(group[image, crop], labels[image]) / 9
        for group in logits
        for image in range(5)
        for crop in range(group.shape[1])
    )
    assert torch.allclose(multi_crop_cross_entropy(logits, labels), torch.as_tensor(slow))


def test_losses__slices_add_up() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3, 4), torch.randint(4, (7,))
    parts = multi_crop_cross_entropy([logits[:2]], labels[:2]) + multi_crop_cross_entropy([logits[2:]], labels[2:])
    assert torch.allclose(parts, multi_crop_cross_entropy([logits], labels))
