"""ImageNet-100-SD: a clone of 130,000 images takes one GPU a day, and a run of 100 epochs takes four GPUs some hours.

Real images: --real DIR of class folders, or a clone's URL. Test sets and transfer tasks: --root, as docs/evaluation.md
says."""

from fakeit_eval.studies.base import Base

BASE = Base(
    name="imagenet_100",
    builder="imagenet_100_sd",
    images_per_class=1300,
    num_classes=100,
    recipe_images_per_class=1300,
    batch_size=256,
    num_iterations=50_700,
    config="imagenet_100_sd",
    real_config="imagenet_100",
    suite="imagenet",
    card_suite="imagenet_cog",
    main_set="imagenet_val",
    shifted_sets=("imagenet_sketch", "imagenet_r"),
    backbone="dinov2",
    classifier="torchvision/resnet50",
    steps=(5, 10, 25, 50, 100),
    fixed="epochs",
)
