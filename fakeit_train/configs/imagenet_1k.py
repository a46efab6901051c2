"""ResNet50 on the real ImageNet-1K, the paper's baseline; the first command turns class folders into a clone.

    fakeit-build make real_images/train imagenet-1k --source imagenet/train
    torchrun --nproc-per-node 4 -m fakeit_train imagenet_1k --data imagenet-1k --out run

Plain augmentation: `--set augmentation=plain`. This config has not been run here yet, because it needs GPUs.
"""

from fakeit_train.configs.imagenet_1k_sd import CONFIG as CONFIG
