"""ImageNet-1K-SD: ten times as large as ImageNet-100-SD, with the CoG levels among its transfer tasks.

Real images: --real DIR of class folders, or a clone's URL. Test sets and transfer tasks: --root, as docs/evaluation.md
says."""

from fakeit_eval.studies.base import Base

BASE = Base(
    name="imagenet_1k",
    builder="imagenet_1k_sd",
    images_per_class=1300,
    num_classes=1000,
    recipe_images_per_class=1300,
    batch_size=256,
    num_iterations=507_800,
    config="imagenet_1k_sd",
    real_config="imagenet_1k",
    suite="imagenet_cog",
    main_set="imagenet_val",
    shifted_sets=("imagenet_sketch", "imagenet_r"),
    backbone="dinov2",
    classifier="torchvision/resnet50",
    steps=(5, 10, 25, 50, 100),
    fixed="epochs",
)
