"""ViT-S/16 on ImageNet-100-SD, with the recipe of DeiT III for small data: AdamW, mixup, cutmix and RandAugment.

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100_sd_vit_s --data hf://datasets/user/imagenet-100-sd --out run

One crop of 224 pixels per image. The learning rate is 5e-4 for 512 images and grows with the batch, as in DeiT (Touvron
et al., 2021); the average of the weights forgets its start, because a clone of 100 classes has few steps. DINO's crops
instead: `--set crops.kinds.1.num_crops=8 mixing.mixup=0 mixing.cutmix=0 backbone.arch_options.dynamic_img_size=true`.

This config has not been run here yet, because it needs GPUs.
"""

from builders.networks.backbone import Backbone
from fakeit_train.config import DataConfig, OptimConfig, TrainConfig
from fakeit_train.crops.config import CropConfig, CropKind, MixConfig

CONFIG = TrainConfig(
    num_epochs=300,
    log_every=50,
    label_smoothing=0.1,
    sync_batch_norm=False,
    backbone=Backbone(
        library="timm",
        arch="vit_small_patch16_224",
        arch_options={"drop_path_rate": 0.1},
        head_bias=True,
        input_size=224,
    ),
    data=DataConfig(batch_size=1024, num_workers=12),
    optim=OptimConfig(
        name="adamw",
        learning_rate=2.5e-4,
        scale_rate=True,
        min_learning_rate=1e-5,
        warm_up=0.05,
        weight_decay=0.05,
        clip_norm=1.0,
        ema=0.9999,
        ema_warm_up=True,
    ),
    crops=CropConfig(
        kinds=(
            CropKind(num_crops=1, size=224, scale=(0.08, 1.0)),
            CropKind(num_crops=0, size=96, scale=(0.05, 0.25), blur=0.5),
        ),
        rand_augment=2,
        jitter=0.0,
        grayscale=0.0,
        erasing=0.25,
    ),
    mixing=MixConfig(mixup=0.8, cutmix=1.0),
)
