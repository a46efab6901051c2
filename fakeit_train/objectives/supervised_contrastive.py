"""Supervised contrastive learning (Khosla et al., 2020): crops of the same class are each other's positives."""

from torch import Tensor, nn

from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig
from fakeit_train.contrast import Contrastive
from fakeit_train.objectives.base import Objective, Traits

TRAITS = Traits(has_classifier=False, compares_images=True, settings="contrast")


def build(network: nn.Module, backbone: Backbone, config: TrainConfig) -> Objective:
    return SupervisedContrastive(network, backbone, config)


class SupervisedContrastive(Contrastive):
    def ids(self, labels: Tensor, prompt_ids: Tensor) -> Tensor:
        return labels
