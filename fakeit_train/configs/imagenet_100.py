"""ResNet50 on the real ImageNet-100, the paper's baseline; the first command turns class folders into a clone.

    fakeit-build make real_images/train imagenet-100 --source imagenet-100/train
    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100 --data imagenet-100 --out run

Plain augmentation: `--set augmentation=plain`. Top-1 in the paper on the validation images (Tab. 2): 87.4, and 86.6
with plain augmentation. This config has not been run here yet, because it needs GPUs.
"""

from fakeit_train.configs.imagenet_100_sd import CONFIG as CONFIG
