"""DINO's crops as its paper's recipe composes them, with Pillow and torchvision: slow, and what ours are held against."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from fakeit_train.crop_draws import CropConfig, CropGroup

Transform = Callable[[Image.Image], Image.Image]


def reference_transform(group: CropGroup, config: CropConfig) -> Transform:
    """One crop of a group: torchvision's transforms on a Pillow image."""
    brightness, contrast, saturation, hue = config.jitter_strength
    blur = transforms.Lambda(_blur(config.blur_sigma))
    found: Transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                group.size, scale=group.scale, ratio=config.ratio, interpolation=InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(config.flip),
            transforms.RandomApply([transforms.ColorJitter(brightness, contrast, saturation, hue)], p=config.jitter),
            transforms.RandomGrayscale(config.grey),
            transforms.RandomApply([blur], p=group.blur),
            transforms.RandomSolarize(128, p=group.solarise),
        ]
    )
    return found


def reference_crops(picture: NDArray[np.uint8], config: CropConfig) -> list[NDArray[np.uint8]]:
    """One array (num_crops, size, size, 3) per group."""
    image = Image.fromarray(picture)
    return [
        np.stack([np.asarray(reference_transform(group, config)(image)) for _ in range(group.num_crops)])
        for group in config.groups
    ]


def _blur(sigma: tuple[float, float]) -> Transform:
    def blur(image: Image.Image) -> Image.Image:
        import torch
        from PIL import ImageFilter

        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(*sigma))))

    return blur
