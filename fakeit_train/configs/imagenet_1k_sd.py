"""ResNet50 on ImageNet-1K-SD, as the paper trains it: `imagenet_100_sd` with ten times the steps.

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_1k_sd --data hf://datasets/user/imagenet-1k-sd --out run

Real images: `imagenet_1k`. Plain augmentation: `imagenet_1k_sd_plain`. This config has not been run here yet, because
it needs GPUs.
"""

from dataclasses import replace

from fakeit_train.configs.imagenet_100_sd import CONFIG as IMAGENET_100_SD

CONFIG = replace(IMAGENET_100_SD, checkpoint_every=2000)
