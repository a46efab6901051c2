"""ResNet50 on ImageNet-100-SD, as the paper trains it (section 4 and supplementary, section 2).

    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100_sd --data hf://datasets/user/imagenet-100-sd --out run

It trains for 100 epochs with a global batch of 256 over four GPUs, with synchronized batch norm and in bfloat16. SGD
has a momentum of 0.9. The learning rate rises linearly to 0.1 over the first tenth of the steps, and then falls as a
cosine. The crops are DINO's, one of 224 and eight of 96 pixels. A linear layer without bias classifies every crop.

Real images: `imagenet_100`. Plain augmentation (Tab. 2): `imagenet_100_sd_plain`. Validation while it trains:
`--val CLONE`.

Top-1 in the paper on ImageNet-100's validation images (Tab. 2): 43.1 for "c" at guidance 7.5. This config has not been
run here yet, because it needs GPUs.
"""

from fakeit_train.config import DataConfig, TrainConfig

CONFIG = TrainConfig(data=DataConfig(num_workers=12), log_every=50, checkpoint_every=500)
