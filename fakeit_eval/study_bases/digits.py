"""Digits made by the embedded model: every study within half an hour on two cores, without a GPU and without a download.

1x is 200 images, so 0.1x is 20 and 50x is 10,000. Runs have 400 iterations of 20 images, half a minute on two cores. The real
training images are 20 of each digit, of the 1,200 that the embedded model learned from.
"""

from fakeit_eval.studies.base import Base

BASE = Base(
    name="digits",
    builder="digits_sd",
    make_options=("--shard-size", "20", "--batch-size", "20"),
    images_per_class=20,
    num_classes=10,
    recipe_images_per_class=200,
    batch_size=20,
    num_iterations=400,
    settings=("data.batch_size=20", "optim.learning_rate=0.03", "checkpoint_every=200", "data.num_workers=1"),
    config="digits",
    real_config="digits",
    real_options=("--images-per-class", "20", "--shard-size", "20"),
    suite="digits",
    main_set="digits_clean",
    steps=(3, 5, 10, 15, 25),
    steps_scheduler="PNDMScheduler",
    fixed="iterations",
)
