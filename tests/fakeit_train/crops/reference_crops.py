"""The reference for our crops: DINO's augmentation, composed of Pillow and torchvision transforms as in its paper."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from fakeit_train.crops.config import CropConfig, CropKind

Transform = Callable[[Image.Image], Image.Image]


def reference_transform(kind: CropKind, config: CropConfig) -> Transform:
    """Returns the transform of one kind of crops, composed of torchvision's transforms of Pillow images."""
    brightness, contrast, saturation, hue = config.jitter_strength
    blur = transforms.Lambda(_blur(config.blur_sigma))
    found: Transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                kind.size, scale=kind.scale, ratio=config.ratio, interpolation=InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(config.flip),
            transforms.RandomApply([transforms.ColorJitter(brightness, contrast, saturation, hue)], p=config.jitter),
            transforms.RandomGrayscale(config.grayscale),
            transforms.RandomApply([blur], p=kind.blur),
            transforms.RandomSolarize(128, p=kind.solarize),
        ]
    )
    return found


def reference_crops(image: NDArray[np.uint8], config: CropConfig) -> list[NDArray[np.uint8]]:
    """Returns the crops of an image: one array (num_crops, size, size, 3) per kind."""
    opened = Image.fromarray(image)
    return [
        np.stack([np.asarray(reference_transform(kind, config)(opened)) for _ in range(kind.num_crops)])
        for kind in config.kinds
    ]


def _blur(sigma: tuple[float, float]) -> Transform:
    def blur(image: Image.Image) -> Image.Image:
        import torch
        from PIL import ImageFilter

        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(*sigma))))

    return blur
