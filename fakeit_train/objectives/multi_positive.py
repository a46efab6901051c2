"""Multi-positive contrastive learning (StableRep, Tian et al., 2023): images of one prompt are each other's positives.

It sees no class labels. Positives of a crop are the other crops of its image, and all crops of its siblings in the batch.
"""

from torch import Tensor, nn

from builders.networks.backbone import Backbone
from fakeit_train.config import TrainConfig
from fakeit_train.contrast import Contrastive
from fakeit_train.objectives.base import Objective, Traits

TRAITS = Traits(has_classifier=False, compares_images=True, deals_siblings=True, settings="contrast")


def build(network: nn.Module, backbone: Backbone, config: TrainConfig) -> Objective:
    return MultiPositive(network, backbone, config)


class MultiPositive(Contrastive):
    def ids(self, labels: Tensor, prompt_ids: Tensor) -> Tensor:
        return prompt_ids
