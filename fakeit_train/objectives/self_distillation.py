"""Self-distillation without labels (DINO, Caron et al., 2021): a student learns what a teacher, its average, says.

All crops of the largest size are global. The teacher sees the global crops, the student all of them. The student's
distribution over prototypes for one crop should be the teacher's for another crop of the same image. Centering and a low
temperature keep the teacher from giving the same for all images. The teacher is exported.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.ops import MLP, StochasticDepth

from builders.errors import UserError
from builders.networks.backbone import Backbone
from builders.networks.heads import feature_size
from fakeit_train.config import TrainConfig
from fakeit_train.objectives.base import Objective, Result, Traits, spread
from fakeit_train.ranks import sum_over_ranks

TRAITS = Traits(has_classifier=False, has_average=True, settings="distillation")


def build(network: nn.Module, backbone: Backbone, config: TrainConfig) -> Objective:
    return SelfDistillation(network, backbone, config)


class Projector(nn.Module):
    """Maps features (n, d) to embeddings of length 1, and these to their cosines with prototypes."""

    def __init__(self, size: int, config: TrainConfig) -> None:
        super().__init__()
        settings = config.distillation
        widths = [settings.projector_width] * (settings.projector_layers - 1) + [settings.embedding_size]
        self.layers = MLP(size, widths, activation_layer=nn.GELU, inplace=None)
        self.prototypes = nn.Parameter(torch.empty(settings.num_prototypes, settings.embedding_size))
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns embeddings (n, d) and logits (n, num_prototypes)."""
        embeddings = F.normalize(self.layers(features).float(), dim=-1)
        return embeddings, F.linear(embeddings, F.normalize(self.prototypes, dim=-1))


class SelfDistillation(Objective):
    center: Tensor
    teacher_temperature: Tensor
    is_free: Tensor

    def __init__(self, network: nn.Module, backbone: Backbone, config: TrainConfig) -> None:
        super().__init__(network, backbone)
        self.settings = config.distillation
        kinds = config.crops_of_image.kinds
        self.global_size = max(kind.size for kind in kinds)
        if sum(kind.num_crops for kind in kinds) < 2:
            raise UserError("self_distillation needs two crops of an image; give crops.kinds.0.num_crops=2")
        self.projector = Projector(feature_size(network), config)
        self.teacher = copy.deepcopy(nn.ModuleDict({"network": self.network, "projector": self.projector}))
        self.teacher.requires_grad_(False)
        for module in self.teacher.modules():
            # The teacher sees what the student sees, without dropout.
            if isinstance(module, nn.Dropout | StochasticDepth):
                module.p = 0.0
            elif isinstance(module, DropPath):
                module.drop_prob = 0.0
        self.register_buffer("center", torch.zeros(self.settings.num_prototypes))
        # Tensors, because compiled code would be compiled again for each new number.
        self.register_buffer(
            "teacher_temperature", torch.tensor(self.settings.teacher_temperature_start), persistent=False
        )
        self.register_buffer("is_free", torch.tensor(1.0), persistent=False)
        self.projector.prototypes.register_hook(lambda gradient: gradient * self.is_free)
        self._momentum = 0.0
        self._total = torch.zeros(())
        """Sum of the teacher's logits in this step, and their number; no buffer, because ranks have sums of their own."""

    @property
    def learned(self) -> nn.Module:
        return self.teacher["network"]

    def before_step(self, step: int, num_steps: int) -> None:
        settings, progress = self.settings, step / num_steps
        self._momentum = 1 - (1 - settings.teacher_momentum) * (1 + math.cos(math.pi * progress)) / 2
        rise = min(progress / settings.temperature_warm_up, 1) if settings.temperature_warm_up else 1
        low, high = settings.teacher_temperature_start, settings.teacher_temperature
        self.teacher_temperature.fill_(low + (high - low) * rise)
        self.is_free.fill_(float(progress >= settings.frozen_prototypes))
        self._total = self.center.new_zeros(len(self.center) + 1)

    def forward(self, crops: Sequence[Tensor], labels: Tensor, prompt_ids: Tensor) -> Result:
        student, embeddings = self._logits(crops, self.network, self.projector)
        with torch.no_grad():
            seen = [crops_of_kind for crops_of_kind in crops if crops_of_kind.shape[2] == self.global_size]
            teacher, _ = self._logits(seen, self.teacher["network"], self.teacher["projector"])
        with torch.autocast(labels.device.type, enabled=False):
            targets = ((teacher - self.center) / self.teacher_temperature).softmax(-1)
            self._total = self._total + F.pad(teacher.sum((0, 1)), (0, 1), value=teacher[..., 0].numel())
            log_shares = (student / self.settings.student_temperature).log_softmax(-1)
            # (batch, teacher's crops, student's crops); global crops come first among the student's.
            losses = -torch.einsum("btp,bsp->bts", targets, log_shares)
            same = torch.eye(*losses.shape[1:], dtype=torch.bool, device=losses.device)
            loss = losses.masked_fill(same, 0).sum() / (~same).sum()
        with torch.no_grad():
            entropy = -(targets * targets.clamp(min=1e-12).log()).sum(-1).mean(1).sum()
            found = spread(embeddings.detach().flatten(0, 1))
        return loss, {"teacher_entropy": entropy, "feature_spread": len(labels) * found}

    def after_step(self) -> None:
        """Moves the teacher towards the student, and the center towards the mean of the teacher's logits."""
        with torch.no_grad():
            student = nn.ModuleDict({"network": self.network, "projector": self.projector})
            torch._foreach_lerp_(list(self.teacher.parameters()), list(student.parameters()), 1 - self._momentum)
            total = sum_over_ranks(self._total)
            self.center.lerp_(total[:-1] / total[-1], 1 - self.settings.center_momentum)

    def _logits(self, crops: Sequence[Tensor], network: nn.Module, projector: nn.Module) -> tuple[Tensor, Tensor]:
        """Returns float32 logits (batch, crops, num_prototypes) and embeddings (batch, crops, d), global crops first."""
        features = self.features(crops, network)
        embeddings, logits = projector(features.flatten(0, 1))
        return logits.float().unflatten(0, features.shape[:2]), embeddings.unflatten(0, features.shape[:2])
