"""Validation by classifiers on the network's features: k nearest neighbors, and a linear probe.

Both learn from some training images, as center crops, and are tested on the validation images. They are those of
`fakeit-eval probe`, without a search of hyper-parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from builders.classifiers import logistic_regression, nearest_neighbors
from builders.errors import UserError
from builders.image_sets.base import ImageSet
from builders.images.read import ReadImage, read_image
from builders.networks.heads import feature_size, features_of
from fakeit_train.config import TrainConfig
from fakeit_train.data.mixture import Mixture
from fakeit_train.data.order import permutation
from fakeit_train.distributed import World
from fakeit_train.validation.base import RankImages, evaluation_mode, labels_in_training

NEIGHBORS, C = 20, 1.0
"""Number of neighbors, as in DINO's evaluation on ImageNet, and inverse strength of the probe's regularization."""
MAX_ITERATIONS = 200
"""Iterations of the probe's fit; the other ranks wait for it."""
KNN, PROBE = "val_knn_top1", "val_probe_top1"


@dataclass(frozen=True)
class TrainingImages:
    """The images of the training data by their numbers."""

    mixture: Mixture

    def __len__(self) -> int:
        return len(self.mixture)

    def __copy__(self) -> "TrainingImages":
        return replace(self, mixture=self.mixture.reopened())

    def read_labeled(self, number: int) -> tuple[ReadImage, int]:
        sample = self.mixture.view(number)
        try:
            return read_image(sample.image), sample.label
        except ValueError as error:
            raise UserError(f"sample '{sample.key}' cannot be read ({error}); run 'fakeit-build verify'") from None


class FeatureValidation:
    """Fits classifiers on features of training images, and tests them on one image set."""

    def __init__(
        self, images: ImageSet, mixture: Mixture, config: TrainConfig, world: World, every: dict[str, int]
    ) -> None:
        """Opens the images. `every` has the steps between validations by name, KNN or PROBE."""
        self.world, self.every = world, every
        self.labels = torch.tensor(labels_in_training(images, mixture.label_names, mixture.class_names))
        self.tested = RankImages(images.readable(), range(len(images)), config, world)
        known = known_numbers(mixture, config.data.seed, config.validation.num_known)
        self.known = RankImages(TrainingImages(mixture), known, config, world)
        self.due: list[str] = []

    def is_due(self, step: int, num_steps: int) -> bool:
        self.due = [name for name, every in self.every.items() if step % every == 0 or step == num_steps]
        return bool(self.due)

    def close(self) -> None:
        self.tested.close()
        self.known.close()

    def scores(self, network: nn.Module, signals: Sequence[int] = ()) -> dict[str, float]:
        """Returns top-1 in percent of the classifiers that are due; {} if a rank receives a stop signal meanwhile."""
        with evaluation_mode(network, self.world):
            found = [self._features(network, images, signals) for images in (self.known, self.tested)]
        if self.world.sum(torch.tensor(len(signals))) > 0:
            return {}
        (known, known_labels), (tested, labels) = found
        # The main rank fits them; the others have nothing to log.
        if not self.world.is_main:
            return dict.fromkeys(self.due, 0.0)
        truth = self.labels[labels].numpy()
        pairs = (known.numpy(), known_labels.numpy()), tested.numpy()
        # Neighbors are ranked in float32, whatever the precision of the run.
        with torch.autocast(self.world.device.type, enabled=False):
            return {name: 100 * float((CLASSIFIERS[name](*pairs) == truth).mean()) for name in self.due}

    def _features(self, network: nn.Module, images: RankImages, signals: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns float32 features (n, d) and labels (n,) of all images, on all ranks."""
        features = torch.zeros(images.count, feature_size(network))
        labels = torch.zeros(images.count, dtype=torch.int64)
        row = self.world.rank
        for pixels, labels_of_batch in images.batches():
            if signals:
                break
            rows = slice(row, row + len(pixels) * self.world.size, self.world.size)
            features[rows] = features_of(network, pixels).float().cpu()
            labels[rows] = labels_of_batch
            row = rows.stop
        return self.world.sum(features), self.world.sum(labels)


def known_numbers(mixture: Mixture, seed: int, count: int) -> list[int]:
    """Returns the numbers of training images to learn from: those of shards at random, which hold all classes alike.

    Images at random would lie in all shards, and each would be fetched as a whole.
    """
    found: list[int] = []
    for shard in permutation(f"{seed}/known", mixture.num_shards).tolist():
        found += mixture.numbers_of(shard)[: count - len(found)]
        if len(found) == count:
            break
    return sorted(found)


def _knn(known: nearest_neighbors.LabeledFeatures, tested: nearest_neighbors.Features) -> nearest_neighbors.Labels:
    return nearest_neighbors.vote(*nearest_neighbors.nearest_neighbors(known, tested, NEIGHBORS), NEIGHBORS)


def _probe(known: nearest_neighbors.LabeledFeatures, tested: nearest_neighbors.Features) -> nearest_neighbors.Labels:
    model = logistic_regression.fit(C, known, max_iterations=MAX_ITERATIONS)
    return logistic_regression.predict(model, tested)


CLASSIFIERS: dict[str, Callable[..., nearest_neighbors.Labels]] = {KNN: _knn, PROBE: _probe}
