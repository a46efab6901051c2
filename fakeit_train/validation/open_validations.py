"""Opens what a configuration validates with."""

from builders.errors import UserError
from builders.image_sets.open_image_set import open_image_set
from fakeit_train.config import TrainConfig
from fakeit_train.data.mixture import Mixture
from fakeit_train.distributed import World
from fakeit_train.validation.base import Validation, Validations
from fakeit_train.validation.classifier import ClassifierValidation
from fakeit_train.validation.features import FeatureValidation


def open_validations(config: TrainConfig, mixture: Mixture, steps_per_epoch: int, world: World) -> Validations:
    """Opens the validation images: a clone, class folders, an archive or a dataset of the Hub; none without validation.

    Raises:
        UserError: they cannot be opened, or have classes that are not in the training data, or nothing can use them.
    """
    settings = config.validation
    if not settings.data:
        return Validations(())
    images = open_image_set(settings.data, cache=config.data.cache)
    found: list[Validation] = []
    if config.backbone.classes:
        found.append(ClassifierValidation(images, config, world, settings.every or steps_per_epoch))
    if settings.knn or settings.linear_probe:
        found.append(FeatureValidation(images, mixture, config, world, steps_per_epoch))
    if not found:
        raise UserError(
            f"'{config.objective}' trains no classifier to validate; add validation.knn=1 for k nearest neighbors after "
            "each epoch, or leave out --val"
        )
    return Validations(found)
