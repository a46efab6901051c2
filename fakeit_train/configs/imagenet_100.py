"""ResNet50 on the real ImageNet-100, the paper's baseline: class folders take the same road as clones.

    fakeit-build make real_images/train imagenet-100 --source imagenet-100/train
    torchrun --nproc-per-node 4 -m fakeit_train imagenet_100 --data imagenet-100 --out run

Plain augmentation: `--set augmentation=plain`. Paper, top-1 on the validation images (Tab. 2): 87.4, plain 86.6. Not run here
yet: it takes GPUs.
"""

from fakeit_train.configs.imagenet_100_sd import CONFIG as CONFIG
