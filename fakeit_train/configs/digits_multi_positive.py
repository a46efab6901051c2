"""Multi-positive contrastive learning (StableRep) on digits of 32x32 pixels, for a laptop.

    fakeit-train digits_multi_positive --data demo/captions --out demo/multi

NOTE
"""

from dataclasses import replace

from fakeit_train.config import OptimConfig
from fakeit_train.configs.digits import CONFIG as DIGITS
from fakeit_train.crops.config import CropKind
from fakeit_train.objective_config import ContrastConfig

CONFIG = replace(
    DIGITS,
    objective="multi_positive",
    num_epochs=40,
    data=replace(DIGITS.data, batch_size=128),
    optim=OptimConfig(name="adamw", learning_rate=2e-3, weight_decay=0.05, min_learning_rate=1e-5),
    crops=replace(
        DIGITS.crops,
        kinds=(
            CropKind(num_crops=2, size=32, scale=(0.5, 1.0), blur=0.2, solarize=0.2),
            CropKind(num_crops=2, size=24, scale=(0.3, 0.7), blur=0.5),
        ),
    ),
    contrast=ContrastConfig(temperature=0.1, projector_width=256, embedding_size=64),
)
