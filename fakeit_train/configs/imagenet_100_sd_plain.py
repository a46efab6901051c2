"""ResNet50 on ImageNet-100-SD with the plain "PyTorch" augmentation of the paper's Tab. 2: one crop per image.

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100_sd_plain --data hf://datasets/user/imagenet-100-sd --out run

Top-1 in the paper on ImageNet-100's validation images: 28.4 for "c" at guidance 7.5 (43.1 with DINO's crops). This
config has not been run here yet, because it needs GPUs.
"""

from dataclasses import replace

from fakeit_train.configs.imagenet_100_sd import CONFIG as IMAGENET_100_SD

CONFIG = replace(IMAGENET_100_SD, augmentation="plain")
