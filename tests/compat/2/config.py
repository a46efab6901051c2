"""A network of a few thousand numbers, for tests."""

from builders.format.backbone import Backbone
from fakeit_train.config import DataConfig, TrainConfig
from fakeit_train.crop_draws import CropConfig, CropGroup

CONFIG = TrainConfig(
    num_epochs=1,
    backbone=Backbone(
        library="timm",
        arch="resnet18",
        arch_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_width": 8},
        input_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    data=DataConfig(batch_size=6, num_workers=0),
    crops=CropConfig(groups=(CropGroup(num_crops=1, size=32, scale=(0.5, 1.0)),)),
)
