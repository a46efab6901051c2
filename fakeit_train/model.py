"""The network in training: takes crops of several kinds and returns the logits of every crop."""

from torch import Tensor, nn

from builders.networks.backbone import Backbone


class MultiCropNetwork(nn.Module):
    """Runs one forward pass per kind of crops.

    All passes are inside one module, so that data parallelism sees a single forward pass per micro-batch.
    """

    def __init__(self, network: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network = network
        self.backbone = backbone

    def forward(self, crops: list[Tensor]) -> list[Tensor]:
        """Maps uint8 crops (batch, num_crops, size, size, 3) of each kind to logits (batch, num_crops, num_classes)."""
        return [
            self.network(normalize(crops_of_kind.flatten(0, 1), self.backbone)).unflatten(0, crops_of_kind.shape[:2])
            for crops_of_kind in crops
        ]


def normalize(images: Tensor, backbone: Backbone) -> Tensor:
    """Converts uint8 images (n, size, size, 3) to normalized float images (n, 3, size, size).

    The memory layout stays channels-last.
    """
    pixels = images.permute(0, 3, 1, 2).float()
    mean, std = (255 * pixels.new_tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    return (pixels - mean) / std
