"""The network as training sees it: crops of every group in, logits of every crop out."""

from torch import Tensor, nn

from builders.format.backbone import Backbone


class MultiCropNetwork(nn.Module):
    """One forward per group of crops, all inside one module, so that data parallelism sees one forward a step."""

    def __init__(self, network: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network = network
        self.mean = [255 * value for value in backbone.mean]
        self.std = [255 * value for value in backbone.std]

    def forward(self, crops: list[Tensor]) -> list[Tensor]:
        """Per group: uint8 (batch, num_crops, size, size, 3) to logits (batch, num_crops, num_classes)."""
        return [self.network(self.normalise(group)).unflatten(0, group.shape[:2]) for group in crops]

    def normalise(self, group: Tensor) -> Tensor:
        """Float (batch x num_crops, 3, size, size), in the channels-last layout that the crops already have."""
        pixels = group.flatten(0, 1).permute(0, 3, 1, 2).float()
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std
