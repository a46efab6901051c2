"""ResNet50 on ImageNet-100-SD, as the paper trains it (section 4 and supplementary, section 2).

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100_sd --data hf://datasets/user/imagenet-100-sd --out run

100 epochs of batches of 256 over four GPUs, synchronised batch norm, bfloat16; SGD with momentum 0.9, the rate rising
linearly over the first tenth of the iterations to 0.1 and falling as a cosine; DINO's crops, one of 224 and eight of 96
pixels, every one classified by a linear layer without bias.

Real images: `imagenet_100`. Plain augmentation (Tab. 2): `imagenet_100_sd_plain`. Validation as it goes: `--val CLONE`.

Paper, top-1 on ImageNet-100's validation images (Tab. 2): 43.1 for "c" at guidance 7.5. Not run here yet: it takes GPUs.
"""

from fakeit_train.config import DataConfig, TrainConfig

CONFIG = TrainConfig(data=DataConfig(num_workers=12), log_every=50, checkpoint_every=500)
