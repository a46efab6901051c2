"""ResNet50 on the real ImageNet-1K, the paper's baseline: class folders take the same road as clones.

    fakeit-build make real_images/train imagenet-1k --source imagenet/train
    torchrun --nproc-per-node 4 -m fakeit_train imagenet_1k --data imagenet-1k --out run

Plain augmentation: `--set augmentation=plain`. Not run here yet: it takes GPUs.
"""

from fakeit_train.configs.imagenet_1k_sd import CONFIG as CONFIG
