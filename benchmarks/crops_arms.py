"""Runs one arm of `benchmarks.crops` alone in its process, on one thread; prints images per second as JSON.

Each arm returns what its users send to the device: ours uint8, which is normalized there, the others what their library
returns. Only our own arms import fakeit, so that other libraries can be in an environment of their own.
"""

import contextlib
import io
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 32
CROP_KINDS = ((1, 224, (0.25, 1.0), 0.2, 0.2), (8, 96, (0.05, 0.25), 0.5, 0.0))
"""Number of crops, size in pixels, range of the scale, probability of blur, probability of solarization."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Batch = Callable[[list[bytes]], Any]


def ours() -> Batch:
    from fakeit_train.crops.config import CropConfig
    from fakeit_train.crops.pipeline import make_crops, make_pipelines
    from fakeit_train.data.decode import decode

    pipelines, number = make_pipelines(CropConfig()), itertools.count()

    def make_batch(images: list[bytes]) -> Any:
        decoded = ((decode("", content), str(next(number)), 0) for content in images)
        return make_crops(decoded, pipelines, 0, len(images))

    return make_batch


def decode_alone() -> Batch:
    from fakeit_train.data.decode import decode

    return lambda images: [decode("", content) for content in images]


def reference() -> Batch:
    """Composes Pillow and torchvision."""
    import torch
    from PIL import Image
    from torchvision import transforms

    from fakeit_train.crops.config import CropConfig
    from tests.fakeit_train.crops.reference_crops import reference_transform

    config = CropConfig()
    finish = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    made = [(kind.num_crops, transforms.Compose([reference_transform(kind, config), *finish])) for kind in config.kinds]

    def batch(images: list[bytes]) -> Any:
        opened = [Image.open(io.BytesIO(content)).convert("RGB") for content in images]
        return [torch.stack([transform(image) for image in opened for _ in range(count)]) for count, transform in made]

    return batch


def torchvision_v2() -> Batch:
    """Uses torchvision's transforms v2 on uint8 tensors that torchvision decodes."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    made = []
    for count, size, scale, blur, solarize in CROP_KINDS:
        made.append((count, v2.Compose([
            v2.RandomResizedCrop(size, scale=scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=blur),
            v2.RandomSolarize(128, p=solarize),
        ])))  # fmt: skip

    def batch(images: list[bytes]) -> Any:
        decoded = [
            decode_jpeg(torch.frombuffer(bytearray(c), dtype=torch.uint8), mode=ImageReadMode.RGB) for c in images
        ]
        return [torch.stack([transform(image) for image in decoded for _ in range(count)]) for count, transform in made]

    return batch


def albumentations() -> Batch:
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    made = []
    for count, size, scale, blur, solarize in CROP_KINDS:
        made.append((count, A.Compose([
            A.RandomResizedCrop(size=(size, size), scale=scale, interpolation=cv2.INTER_CUBIC),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=blur),
            A.Solarize(threshold_range=(0.5, 0.5), p=solarize),
        ])))  # fmt: skip

    def batch(images: list[bytes]) -> Any:
        decoded = [
            cv2.cvtColor(cv2.imdecode(np.frombuffer(c, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for c in images
        ]
        return [
            np.stack([transform(image=image)["image"] for image in decoded for _ in range(count)])
            for count, transform in made
        ]

    return batch


def kornia() -> Batch:
    import kornia.augmentation as K
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    torch.set_num_threads(1)
    made = []
    for count, size, scale, blur, solarize in CROP_KINDS:
        made.append((count, torch.nn.Sequential(
            K.RandomResizedCrop((size, size), scale=scale, resample="BICUBIC"),
            K.RandomHorizontalFlip(0.5),
            K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((9, 9), (0.1, 2.0), p=blur),
            K.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=solarize),
        )))  # fmt: skip

    def batch(images: list[bytes]) -> Any:
        decoded = [
            decode_jpeg(torch.frombuffer(bytearray(c), dtype=torch.uint8), mode=ImageReadMode.RGB) for c in images
        ]
        stacked = torch.stack(decoded).float() / 255
        with torch.inference_mode():
            return [torch.cat([transform(stacked) for _ in range(count)]) for count, transform in made]

    return batch


def dali() -> Batch:
    """Uses DALI's CPU operators; its color twist jitters in a fixed order."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH_SIZE, num_threads=1, device_id=None, prefetch_queue_depth=1)  # type: ignore[untyped-decorator]
    def pipeline(source: Any) -> Any:
        encoded = fn.external_source(source=source, dtype=types.UINT8, ndim=1)
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        outputs = []
        for count, size, scale, blur, solarize in CROP_KINDS:
            for _ in range(count):
                crop = fn.random_resized_crop(images, size=size, random_area=scale, interp_type=types.INTERP_CUBIC)
                crop = fn.flip(crop, horizontal=fn.random.coin_flip(probability=0.5))
                jitter = fn.random.coin_flip(probability=0.8)
                amount = {
                    name: 1 + jitter * fn.random.uniform(range=(-s, s))
                    for name, s in (("brightness", 0.4), ("contrast", 0.4))
                }
                keep = 1 - fn.random.coin_flip(probability=0.2)
                saturation = keep * (1 + jitter * fn.random.uniform(range=(-0.2, 0.2)))
                crop = fn.color_twist(
                    crop, saturation=saturation, hue=jitter * fn.random.uniform(range=(-36, 36)), **amount
                )
                blurred = fn.gaussian_blur(crop, sigma=fn.random.uniform(range=(0.1, 2.0)))
                is_blurred = fn.cast(fn.random.coin_flip(probability=blur), dtype=types.UINT8)
                crop = blurred * is_blurred + crop * (1 - is_blurred)
                if solarize:
                    is_turned = fn.cast((crop >= 128) * fn.random.coin_flip(probability=solarize), dtype=types.UINT8)
                    crop = crop * (1 - is_turned) + (255 - crop) * is_turned
                outputs.append(fn.cast(crop, dtype=types.UINT8))
        return tuple(outputs)

    waiting: list[list[bytes]] = []
    built = pipeline(source=lambda: [np.frombuffer(content, np.uint8) for content in waiting[0]])
    built.build()

    def batch(images: list[bytes]) -> Any:
        waiting[:] = [images]
        return [output.as_array() for output in built.run()]

    return batch


ARMS = {
    "ours": ours,
    "decode_alone": decode_alone,
    "reference": reference,
    "torchvision_v2": torchvision_v2,
    "albumentations": albumentations,
    "kornia": kornia,
    "dali": dali,
}


def main() -> None:
    arm, folder, num_batches = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    for name, setting in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        with contextlib.suppress(ImportError):
            getattr(__import__(name), setting)(1)
    images = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[: BATCH_SIZE * num_batches]]
    batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    make = ARMS[arm]()
    make(batches[0])
    began = time.perf_counter()
    for batch in batches:
        make(batch)
    print(json.dumps({"rate": len(images) / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
