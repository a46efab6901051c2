"""The network as training sees it: crops of every group in, logits of every crop out."""

from torch import Tensor, nn

from builders.networks.backbone import Backbone


class MultiCropNetwork(nn.Module):
    """One forward per group of crops, all inside one module, so that data parallelism sees one forward a step."""

    def __init__(self, network: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network = network
        self.backbone = backbone

    def forward(self, crops: list[Tensor]) -> list[Tensor]:
        """Per group: uint8 (batch, num_crops, size, size, 3) to logits (batch, num_crops, num_classes)."""
        return [
            self.network(normalize(crops_of_kind.flatten(0, 1), self.backbone)).unflatten(0, crops_of_kind.shape[:2])
            for crops_of_kind in crops
        ]


def normalize(images: Tensor, backbone: Backbone) -> Tensor:
    """uint8 (n, size, size, 3) to float (n, 3, size, size), in the channels-last layout that they already have."""
    pixels = images.permute(0, 3, 1, 2).float()
    mean, std = (255 * pixels.new_tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    return (pixels - mean) / std
