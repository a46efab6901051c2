"""ResNet50 on ImageNet-1K-SD, as the paper trains it: the recipe of `imagenet_100_sd`, ten times the iterations.

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_1k_sd --data hf://datasets/user/imagenet-1k-sd --out run

Real images: `imagenet_1k`. Plain augmentation: `imagenet_1k_sd_plain`. Not run here yet: it takes GPUs.
"""

from dataclasses import replace

from fakeit_train.configs.imagenet_100_sd import CONFIG as IMAGENET_100_SD

CONFIG = replace(IMAGENET_100_SD, checkpoint_every=2000)
