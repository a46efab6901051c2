"""Crops in batches on the training device, as `parameters` drew them: the same as on the CPU but for rounding.

Workers only decode. Resizing and blurring are products with matrices, one per crop: of the bicubic filter that widens as it
shrinks (Pillow's), flip included, and of the Gaussian with reflected borders (OpenCV's).
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
"""Of padded pictures, in float32; a larger picture comes alone."""


@dataclass
class BatchParameters:
    """The drawn crops of a group for a batch of images, as tensors (batch, num_crops, …)."""

    window: Tensor
    """float32 (…, 4): left, top, width, height."""
    flip: Tensor
    """bool."""
    order: Tensor
    """int64 (…, 4): which colour change is done first, second, third, fourth; -1 for none."""
    amounts: Tensor
    """float32 (…, 4), of each in that order."""
    grayscale: Tensor
    """bool."""
    sigma: Tensor
    """float32; 0 for no blur."""
    solarize: Tensor
    """bool."""


NOTHING = ((-1, 0.0),) * 4


def collect(crops: Sequence[list[CropParameters]]) -> BatchParameters:
    """From each image's crops of one group."""
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
    """Decoded pictures of any sizes, one after the other."""

    pixels: Tensor
    """uint8, flat: of each picture (height, width, 3)."""
    sizes: list[tuple[int, int]]
    """Height and width of each."""

    def pin_memory(self) -> "PackedImages":
        return PackedImages(self.pixels.pin_memory(), self.sizes)

    def to(self, device: torch.device) -> "PackedImages":
        return PackedImages(self.pixels.to(device, non_blocking=True), self.sizes)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Runs of pictures, as many as `PIXELS_AT_A_TIME` hold, (count, height, width, 3): padded to the largest of the run."""
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
            for position, number in zip(padded, range(first, last), strict=True):
                high, wide = self.sizes[number]
                position[:high, :wide] = self.pixels[starts[number] : starts[number + 1]].view(high, wide, 3)
            yield slice(first, last), padded
            first = last


def pack(images: Sequence[Pixels]) -> PackedImages:
    """One buffer, for a batch that travels between processes."""
    flat = np.concatenate([image.reshape(-1) for image in images])
    return PackedImages(torch.from_numpy(flat), [(image.shape[0], image.shape[1]) for image in images])


@torch.no_grad()
def make_on_device(
    images: PackedImages, parameters: list[BatchParameters], kinds: tuple[CropKind, ...]
) -> list[Tensor]:
    """The crops of pictures that are on the device: uint8 (batch, num_crops, size, size, 3) per group."""
    resized: list[list[Tensor]] = [[] for _ in kinds]
    for some, padded in images.chunks():
        pixels = padded.float()
        for found, batch, kind in zip(resized, parameters, kinds, strict=True):
            window, flip = (tensor[some].to(pixels.device, non_blocking=True) for tensor in (batch.window, batch.flip))
            found.append(resize(pixels, window, flip, kind.size))
    return [_change_colors(torch.cat(found), batch) for found, batch in zip(resized, parameters, strict=True)]


def _change_colors(resized: Tensor, parameters: BatchParameters) -> Tensor:
    """float32 (batch, num_crops, size, size, 3) to uint8."""
    crops = resized.flatten(0, 1)  # whole numbers 0 … 255
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
    """Changes the chosen crops in place; what was drawn lies on the CPU, so that nobody waits for the device."""
    numbers = torch.nonzero(is_chosen).flatten()
    if len(numbers):
        own = [argument[numbers].to(crops.device, non_blocking=True) for argument in arguments]
        numbers = numbers.to(crops.device, non_blocking=True)
        crops[numbers] = change(crops[numbers], *own)


def resize(images: Tensor, window: Tensor, flip: Tensor, size: int) -> Tensor:
    """Windows of float32 pictures (batch, height, width, 3), resized: (batch, num_crops, size, size, 3), whole numbers."""
    height, width = images.shape[1:3]
    left, top, wide, high = window.unbind(-1)
    rows = bicubic_matrix(top, high, height, size)  # (batch, num_crops, size, height)
    columns = bicubic_matrix(left, wide, width, size)
    columns = torch.where(flip[..., None, None], columns.flip(-2), columns)
    found = rows.flatten(1, 2) @ images.flatten(2)  # (batch, num_crops x size, width x 3)
    found = _whole(found).unflatten(2, (width, 3)).unflatten(1, (-1, size))
    return _whole(torch.einsum("ncyxk,ncsx->ncysk", found, columns))


def bicubic_matrix(start: Tensor, length: Tensor, num_pixels: int, size: int) -> Tensor:
    """Weights (…, size, num_pixels) that resize `length` pixels from `start` on to `size`, each row of sum 1."""
    start, length = start[..., None, None], length[..., None, None]
    scale = length / size
    pixel = torch.arange(num_pixels, device=start.device) - start
    center = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    weights = _bicubic((pixel + 0.5 - center) / scale.clamp(min=1)) * ((pixel >= 0) & (pixel < length))
    return weights / weights.sum(-1, keepdim=True)


def _bicubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel."""
    x = x.abs()
    suggest, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, suggest, torch.where(x < 2, far, 0.0))


def blur(crops: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of crops (n, size, size, 3) with their own sigma (n,)."""
    matrix = gaussian_matrix(sigma, crops.shape[1])
    return _whole(torch.einsum("nij,njxk,nyx->niyk", matrix, crops, matrix))


def gaussian_matrix(sigma: Tensor, size: int) -> Tensor:
    """Weights (n, size, size); the border is reflected without its edge pixel, the radius is half of OpenCV's for bytes."""
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
    """One colour change of crops (n, size, size, 3) by their own amounts (n,)."""
    amount = amount[:, None, None, None]
    if which == BRIGHTNESS:
        return _whole(crops * amount)
    if which == CONTRAST:
        return _whole(crops * amount + (1 - amount) * luma(crops).mean((1, 2, 3), keepdim=True))
    if which == SATURATION:
        return _whole(crops * amount + (1 - amount) * luma(crops))
    return _whole(shift_hue(crops, amount))


def shift_hue(crops: Tensor, turn: Tensor) -> Tensor:
    """Hue turned by shares of the circle; crops (n, size, size, 3)."""
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
    """Grey values (…, 1) of (…, 3), whole numbers."""
    return (crops @ crops.new_tensor(LUMA)).round()[..., None]


def _whole(values: Tensor) -> Tensor:
    """As bytes would hold them."""
    return values.round().clamp(0, 255)
