"""Opens what a configuration validates with."""

from builders.image_sets.open_image_set import open_image_set
from fakeit_train.config import TrainConfig
from fakeit_train.data.mixture import Mixture
from fakeit_train.distributed import World
from fakeit_train.validation.base import Validation, Validations
from fakeit_train.validation.classifier import ClassifierValidation
from fakeit_train.validation.features import KNN, PROBE, FeatureValidation


def open_validations(config: TrainConfig, mixture: Mixture, steps_per_epoch: int, world: World) -> Validations:
    """Opens the validation images: a clone, class folders, an archive or a dataset of the Hub; none without validation.

    A network without a classifier is validated by k nearest neighbors after each epoch, unless the settings say more.

    Raises:
        UserError: they cannot be opened, or have classes that are not in the training data.
    """
    settings = config.validation
    if not settings.data:
        return Validations(())
    images = open_image_set(settings.data, cache=config.data.cache)
    found: list[Validation] = []
    if config.backbone.classes:
        found.append(ClassifierValidation(images, config, world, settings.every or steps_per_epoch))
    epochs = {KNN: settings.knn, PROBE: settings.linear_probe}
    if not config.backbone.classes and not any(epochs.values()):
        epochs[KNN] = 1
    if every := {name: count * steps_per_epoch for name, count in epochs.items() if count}:
        found.append(FeatureValidation(images, mixture, config, world, every))
    return Validations(found, "val_top1" if config.backbone.classes else PROBE if epochs[PROBE] else KNN)
