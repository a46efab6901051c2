"""Contrastive learning with several positives: crops of the same class or the same prompt attract each other.

For a crop i, candidates are all other crops of the global batch. The loss is the cross-entropy between the uniform
distribution over the positives P(i) and the softmax over candidates of s_ia / temperature, with s the cosine:

    -1 / |P(i)| sum over p in P(i) of log(exp(s_ip / t) / sum over a != i of exp(s_ia / t))

This is the loss "out" of SupCon (Khosla et al., 2020), and of StableRep (Tian et al., 2023) with images of one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP

from builders.networks.backbone import Backbone
from builders.networks.heads import feature_size
from fakeit_train.config import TrainConfig
from fakeit_train.objectives.base import Objective, Result, spread
from fakeit_train.ranks import first_of, gather


@dataclass(frozen=True)
class Contrast:
    """What is computed for each of n crops."""

    loss: Tensor
    """(n,); 0 for a crop without positives."""
    num_positives: Tensor
    """(n,), number of positives."""
    is_right: Tensor
    """(n,), whether the most similar candidate is a positive."""


def contrast(
    embeddings: Tensor, ids: Tensor, candidates: Tensor, candidate_ids: Tensor, first: int, temperature: float
) -> Contrast:
    """Compares crops with candidates.

    Args:
        embeddings: float32 (n, d) of length 1.
        ids: int64 (n,); crops with the same id are each other's positives.
        candidates: float32 (m, d) of length 1, among them the crops themselves, from row `first` on.
        candidate_ids: int64 (m,); candidates with a negative id do not exist.
        first: Row of the first crop in `candidates`.
        temperature: Divisor of the cosines.
    """
    own = torch.arange(len(ids), device=ids.device)
    logits = (embeddings @ candidates.T) / temperature
    is_absent = (candidate_ids < 0).expand_as(logits).clone()
    is_absent[own, own + first] = True
    logits = logits.masked_fill(is_absent, -torch.inf)
    is_positive = (ids[:, None] == candidate_ids) & ~is_absent
    num_positives = is_positive.sum(1)
    log_shares = logits.log_softmax(1).masked_fill(~is_positive, 0)
    loss = -log_shares.sum(1) / num_positives.clamp(min=1)
    with torch.no_grad():
        is_right = is_positive.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    return Contrast(loss, num_positives, is_right)


class Contrastive(Objective):
    """Embeds crops by a projector, which is not exported, and compares them across all ranks."""

    queue: Tensor
    queue_ids: Tensor

    def __init__(self, network: nn.Module, backbone: Backbone, config: TrainConfig) -> None:
        super().__init__(network, backbone)
        settings = config.contrast
        self.temperature = settings.temperature
        self.projector = MLP(
            feature_size(network),
            [settings.projector_width] * (settings.projector_layers - 1) + [settings.embedding_size],
        )
        # Embeddings of earlier batches are further candidates.
        self.register_buffer("queue", torch.zeros(settings.queue, settings.embedding_size))
        self.register_buffer("queue_ids", torch.full((settings.queue,), -1))

    def ids(self, labels: Tensor, prompt_ids: Tensor) -> Tensor:
        """Returns the ids (batch,) that positives have in common."""
        raise NotImplementedError

    def forward(self, crops: Sequence[Tensor], labels: Tensor, prompt_ids: Tensor) -> Result:
        projected = self.projector(self.features(crops))
        with torch.autocast(labels.device.type, enabled=False):
            embeddings = F.normalize(projected.float(), dim=-1)
            num_images, num_crops = embeddings.shape[:2]
            own = embeddings.flatten(0, 1)
            ids = self.ids(labels, prompt_ids).repeat_interleave(num_crops)
            everyone, all_ids = gather(own), gather(ids)
            found = contrast(
                own, ids, torch.cat([everyone, self.queue]), torch.cat([all_ids, self.queue_ids]), first_of(own),
                self.temperature,
            )  # fmt: skip
        if self.training and len(self.queue):
            self._push(everyone.detach(), all_ids)
        of_images = {"positives": found.num_positives, "nearest_is_positive": 100 * found.is_right}
        metrics = {name: value.float().sum() / num_crops for name, value in of_images.items()}
        return found.loss.sum() / num_crops, {**metrics, "feature_spread": num_images * spread(own.detach())}

    def _push(self, embeddings: Tensor, ids: Tensor) -> None:
        self.queue.copy_(torch.cat([embeddings, self.queue])[: len(self.queue)])
        self.queue_ids.copy_(torch.cat([ids, self.queue_ids])[: len(self.queue)])
