"""ResNet50 on ImageNet-1K-SD with plain "PyTorch" augmentation: one crop per image.

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_1k_sd_plain --data hf://datasets/user/imagenet-1k-sd --out run

This config has not been run here yet, because it needs GPUs.
"""

from dataclasses import replace

from fakeit_train.configs.imagenet_1k_sd import CONFIG as IMAGENET_1K_SD

CONFIG = replace(IMAGENET_1K_SD, augmentation="plain")
