"""A small vision transformer on digits of 28x28 pixels, with mixup, cutmix and RandAugment, for a laptop.

    fakeit-train digits_vit --data demo/digits --out demo/vit

Over three seeds, networks trained on the demo's 2,000 synthetic digits reach 97.2, 95.3 and 95.1 % on real digits, in 8 to 9
minutes on two idle cores. The same network by SGD (rate 0.1) reaches 65 to 83 % (benchmarks/results/2026-11-29-vit.md).

Images of 28 pixels have 49 patches of 4 pixels, a quarter fewer than images of 32; the time goes into epochs instead.
"""

from builders.networks.backbone import Backbone
from fakeit_train.config import DataConfig, OptimConfig, TrainConfig
from fakeit_train.crops.config import CropConfig, CropKind, MixConfig

CONFIG = TrainConfig(
    num_epochs=75,
    checkpoint_every=500,
    label_smoothing=0.1,
    backbone=Backbone(
        library="timm",
        arch="vit_tiny_patch16_224",
        arch_options={
            "img_size": 28,
            "patch_size": 4,
            "embed_dim": 96,
            "depth": 6,
            "num_heads": 3,
            "class_token": False,
            "global_pool": "avg",
            "drop_path_rate": 0.05,
        },
        head_bias=True,
        input_size=28,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    data=DataConfig(batch_size=64, num_workers=1),
    optim=OptimConfig(
        name="adamw",
        learning_rate=2e-3,
        min_learning_rate=1e-5,
        warm_up=0.05,
        weight_decay=0.05,
        clip_norm=1.0,
        ema=0.998,
        ema_warm_up=True,
    ),
    crops=CropConfig(
        kinds=(CropKind(num_crops=1, size=28, scale=(0.5, 1.0), blur=0.2, solarize=0.2),),
        flip=0.0,
        rand_augment=1,
        blur_sigma=(0.1, 0.6),
    ),
    mixing=MixConfig(mixup=0.2, cutmix=1.0, probability=0.4),
)
