"""Generates crops in batches on the training device; they equal those of the CPU up to rounding.

The loader's workers then only decode. Resizing and blurring are products with one matrix per crop. The matrices are
those of Pillow's antialiased bicubic filter, combined with the flip, and of OpenCV's Gaussian filter with reflected
borders.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fakeit_train.crops.on_cpu import LUMA, Pixels
from fakeit_train.crops.parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION, CropKind, CropParameters

PIXELS_AT_A_TIME = 32 * 512 * 512
"""Maximum number of pixels of the padded float32 images in a chunk; a larger image is a chunk of its own."""


@dataclass
class BatchParameters:
    """The parameters of one kind of crops for a batch of images, as tensors (batch, num_crops, …)."""

    window: Tensor
    """float32 (…, 4): left, top, width, height."""
    flip: Tensor
    """bool."""
    order: Tensor
    """int64 (…, 4): color changes in their order of application; -1 for none."""
    amounts: Tensor
    """float32 (…, 4): amount of each color change, in the same order."""
    grayscale: Tensor
    """bool."""
    sigma: Tensor
    """float32; 0 for no blur."""
    solarize: Tensor
    """bool."""


NOTHING = ((-1, 0.0),) * 4


def collect(crops: Sequence[list[CropParameters]]) -> BatchParameters:
    """Converts the parameters of each image's crops of one kind to tensors."""
    jitter = np.array([[crop.jitter or NOTHING for crop in image] for image in crops])
    return BatchParameters(
        window=torch.tensor([[[c.left, c.top, c.wide, c.high] for c in image] for image in crops], dtype=torch.float32),
        flip=torch.tensor([[crop.flip for crop in image] for image in crops]),
        order=torch.from_numpy(jitter[..., 0].astype(np.int64)),
        amounts=torch.from_numpy(jitter[..., 1].astype(np.float32)),
        grayscale=torch.tensor([[crop.grayscale for crop in image] for image in crops]),
        sigma=torch.tensor([[crop.sigma for crop in image] for image in crops], dtype=torch.float32),
        solarize=torch.tensor([[crop.solarize for crop in image] for image in crops]),
    )


@dataclass
class PackedImages:
    """Decoded images of any sizes in one buffer."""

    pixels: Tensor
    """uint8, flat: the pixels (height, width, 3) of one image after another."""
    sizes: list[tuple[int, int]]
    """(height, width) of each image."""

    def pin_memory(self) -> "PackedImages":
        return PackedImages(self.pixels.pin_memory(), self.sizes)

    def to(self, device: torch.device) -> "PackedImages":
        return PackedImages(self.pixels.to(device, non_blocking=True), self.sizes)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields slices of the batch and their pixels (count, height, width, 3), padded to the slice's largest image.

        A slice has at most `PIXELS_AT_A_TIME` padded pixels, or a single image.
        """
        starts = [0, *itertools.accumulate(3 * height * width for height, width in self.sizes)]
        first = 0
        while first < len(self.sizes):
            last, (height, width) = first + 1, self.sizes[first]
            while last < len(self.sizes):
                larger = max(height, self.sizes[last][0]), max(width, self.sizes[last][1])
                if (last + 1 - first) * larger[0] * larger[1] > PIXELS_AT_A_TIME:
                    break
                last, (height, width) = last + 1, larger
            padded = self.pixels.new_zeros((last - first, height, width, 3))
            for target, number in zip(padded, range(first, last), strict=True):
                high, wide = self.sizes[number]
                target[:high, :wide] = self.pixels[starts[number] : starts[number + 1]].view(high, wide, 3)
            yield slice(first, last), padded
            first = last


def pack(images: Sequence[Pixels]) -> PackedImages:
    """Packs images into one buffer, which is cheap to send between processes."""
    flat = np.concatenate([image.reshape(-1) for image in images])
    return PackedImages(torch.from_numpy(flat), [(image.shape[0], image.shape[1]) for image in images])


@torch.no_grad()
def make_on_device(
    images: PackedImages, parameters: list[BatchParameters], kinds: tuple[CropKind, ...]
) -> list[Tensor]:
    """Generates the crops of images on their device: one uint8 tensor (batch, num_crops, size, size, 3) per kind."""
    resized: list[list[Tensor]] = [[] for _ in kinds]
    for some, padded in images.chunks():
        pixels = padded.float()
        for found, batch, kind in zip(resized, parameters, kinds, strict=True):
            window, flip = (tensor[some].to(pixels.device, non_blocking=True) for tensor in (batch.window, batch.flip))
            found.append(resize(pixels, window, flip, kind.size))
    return [_change_colors(torch.cat(found), batch) for found, batch in zip(resized, parameters, strict=True)]


def _change_colors(resized: Tensor, parameters: BatchParameters) -> Tensor:
    """Applies color changes, blur and solarization: float32 (batch, num_crops, size, size, 3) to uint8."""
    # The values are whole numbers from 0 to 255.
    crops = resized.flatten(0, 1)
    order, amounts, sigma = parameters.order.flatten(0, 1), parameters.amounts.flatten(0, 1), parameters.sigma.flatten()
    for turn in range(order.shape[1]):
        for which in (BRIGHTNESS, CONTRAST, SATURATION, HUE):
            change = partial(_jitter, which)
            _change(crops, order[:, turn] == which, change, amounts[:, turn])
    _change(crops, parameters.grayscale.flatten(), lambda chosen: luma(chosen).expand_as(chosen))
    _change(crops, sigma > 0, blur, sigma)
    _change(crops, parameters.solarize.flatten(), lambda chosen: torch.where(chosen >= 128, 255 - chosen, chosen))
    return crops.to(torch.uint8).unflatten(0, parameters.flip.shape)


def _change(crops: Tensor, is_chosen: Tensor, change: Callable[..., Tensor], *arguments: Tensor) -> None:
    """Changes the chosen crops in place; `is_chosen` is on the CPU, so choosing crops needs no device sync."""
    numbers = torch.nonzero(is_chosen).flatten()
    if len(numbers):
        own = [argument[numbers].to(crops.device, non_blocking=True) for argument in arguments]
        numbers = numbers.to(crops.device, non_blocking=True)
        crops[numbers] = change(crops[numbers], *own)


def resize(images: Tensor, window: Tensor, flip: Tensor, size: int) -> Tensor:
    """Resizes windows of float32 images (batch, height, width, 3) to (batch, num_crops, size, size, 3).

    The results are whole numbers.
    """
    height, width = images.shape[1:3]
    left, top, wide, high = window.unbind(-1)
    rows = bicubic_matrix(top, high, height, size)  # (batch, num_crops, size, height)
    columns = bicubic_matrix(left, wide, width, size)
    columns = torch.where(flip[..., None, None], columns.flip(-2), columns)
    found = rows.flatten(1, 2) @ images.flatten(2)  # (batch, num_crops x size, width x 3)
    found = _whole(found).unflatten(2, (width, 3)).unflatten(1, (-1, size))
    return _whole(torch.einsum("ncyxk,ncsx->ncysk", found, columns))


def bicubic_matrix(start: Tensor, length: Tensor, num_pixels: int, size: int) -> Tensor:
    """Returns weights (…, size, num_pixels) that resize `length` pixels from `start` on to `size`; rows sum to 1."""
    start, length = start[..., None, None], length[..., None, None]
    scale = length / size
    pixel = torch.arange(num_pixels, device=start.device) - start
    center = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    weights = _bicubic((pixel + 0.5 - center) / scale.clamp(min=1)) * ((pixel >= 0) & (pixel < length))
    return weights / weights.sum(-1, keepdim=True)


def _bicubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Evaluates Keys' cubic convolution kernel."""
    x = x.abs()
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def blur(crops: Tensor, sigma: Tensor) -> Tensor:
    """Blurs crops (n, size, size, 3) with a Gaussian filter, each with its own sigma (n,) in pixels."""
    matrix = gaussian_matrix(sigma, crops.shape[1])
    return _whole(torch.einsum("nij,njxk,nyx->niyk", matrix, crops, matrix))


def gaussian_matrix(sigma: Tensor, size: int) -> Tensor:
    """Returns the weights (n, size, size) of a Gaussian blur with sigma (n,).

    The border is reflected without its edge pixel. The radius is half of OpenCV's kernel size for uint8.
    """
    reach = (torch.round(sigma * 6 + 1).to(torch.int64) | 1) // 2
    position = torch.arange(size, device=sigma.device)
    here, other = position[:, None], position[None, :]

    def weight(distance: Tensor) -> Tensor:
        gaussian = torch.exp(-(distance**2) / (2 * sigma[:, None, None] ** 2))
        return gaussian * (distance.abs() <= reach[:, None, None])

    weights = weight(here - other)
    weights = weights + weight(here + other) * (other > 0)
    weights = weights + weight(2 * (size - 1) - here - other) * (other < size - 1)
    return weights / weights.sum(-1, keepdim=True)


def _jitter(which: int, crops: Tensor, amount: Tensor) -> Tensor:
    """Applies one color change to crops (n, size, size, 3), each with its own amount (n,)."""
    amount = amount[:, None, None, None]
    if which == BRIGHTNESS:
        return _whole(crops * amount)
    if which == CONTRAST:
        return _whole(crops * amount + (1 - amount) * luma(crops).mean((1, 2, 3), keepdim=True))
    if which == SATURATION:
        return _whole(crops * amount + (1 - amount) * luma(crops))
    return _whole(shift_hue(crops, amount))


def shift_hue(crops: Tensor, turn: Tensor) -> Tensor:
    """Shifts the hue of crops (n, size, size, 3) by `turn`, fractions of the color circle (n, 1, 1, 1)."""
    value, chroma = crops.amax(-1), crops.amax(-1) - crops.amin(-1)
    red, green, blue = crops.unbind(-1)
    divisor = chroma.clamp(min=1e-6)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixths = sixths[..., None] + 6 * turn
    k = (sixths + sixths.new_tensor([5.0, 3.0, 1.0])) % 6
    return value[..., None] - chroma[..., None] * torch.minimum(k, 4 - k).clamp(0, 1)


def luma(crops: Tensor) -> Tensor:
    """Returns gray values (…, 1) of RGB values (…, 3), rounded to whole numbers."""
    return (crops @ crops.new_tensor(LUMA)).round()[..., None]


def _whole(values: Tensor) -> Tensor:
    """Rounds and clamps values to those of uint8."""
    return values.round().clamp(0, 255)
