"""Extracts pooled features (n, d), the classifier's input, and caches them on disk.

The cache's key is a digest of everything that features depend on: weights, images (by name, size and label),
preprocessing and precision. Under torchrun, each rank extracts a slice into the same file.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from builders.command_line.progress import progress
from builders.errors import UserError, first_line
from builders.image_sets.base import ImageSet
from builders.images.center_crop import PREPROCESSING
from builders.images.crop_batches import checked_batches, crop_loader, default_workers
from builders.networks.heads import features_of, heads_of
from builders.storage.cache_folder import cache_folder
from fakeit_eval import ranks
from fakeit_eval.models import Model

FEATURES, FINISHED = "features.npy", "finished.json"
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Loading:
    batch_size: int = 256
    """Images per forward pass."""
    workers: int = field(default_factory=default_workers)
    """Processes that load images; 0 loads them in the main process."""
    precision: str = "float32"
    """float32, or bfloat16: faster on a GPU, and features differ in the third digit."""
    cache: Path = field(default_factory=cache_folder)
    """Folder of cached features and hyper-parameter searches."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise UserError(
                f"--batch-size is {self.batch_size} and --workers {self.workers}, but must be at least 1 and 0"
            )
        if self.precision not in PRECISIONS:
            raise UserError(f"unknown --precision '{self.precision}'; choose from {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class StoredFeatures:
    """float32 features (n, d) in a file; only the requested rows are read, by a slice or by row indices."""

    path: Path
    shape: tuple[int, int]
    offset: int
    """Byte offset of the first row in the file."""
    num_cut: int = 0
    """Number of truncated image files, decoded up to their end."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "slice | NDArray[np.int64]") -> NDArray[np.float32]:
        with self.path.open("rb") as file:
            if isinstance(rows, slice):
                start, stop, _ = rows.indices(len(self))
                return self._read(file.fileno(), start, max(stop - start, 0))
            found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
            for position, row in enumerate(rows.tolist()):
                found[position] = self._read(file.fileno(), row, 1)
            return found

    def _read(self, descriptor: int, start: int, count: int) -> NDArray[np.float32]:
        row_bytes = 4 * self.shape[1]
        content = bytearray(count * row_bytes)
        view, done = memoryview(content), 0
        while done < len(content):
            got = os.preadv(descriptor, [view[done:]], self.offset + start * row_bytes + done)
            if not got:
                raise UserError(
                    f"'{self.path}' is truncated; remove its folder, and run the command again to extract the features"
                )
            done += got
        return np.frombuffer(content, dtype="<f4").reshape(count, self.shape[1])


def extract(model: Model, images: ImageSet, loading: Loading) -> StoredFeatures:
    """Extracts the features (n, d) of all images in their order; cached ones are not computed again.

    Raises:
        UserError: an image is broken, or the network gives no features.
    """
    depends_on = [model.sha256, images.digest, images.policy, PREPROCESSING]
    if loading.precision != "float32":
        depends_on.append(loading.precision)
    folder = loading.cache / "features" / hashlib.sha256("\n".join(depends_on).encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(images), model.backbone.feature_size)
    # Ranks decide together, so that all of them extract or none does.
    with nullcontext() if ranks.RANK else filelock.FileLock(folder / "lock"):
        stored = _finished(folder, shape)
        if not ranks.share(stored is not None):
            _fill(folder, shape, model, images, loading)
            stored = None
        found = stored or _finished(folder, shape)
    if found is None:
        raise UserError(f"'{folder}' does not have what another rank has written; give all ranks the same --cache")
    return found


def class_scores(model: Model, features: StoredFeatures) -> NDArray[np.float32]:
    """Computes the logits (n, classes) of the model's own classifier from its features."""
    import torch

    (head,) = heads_of(model.network).values()
    head = head.cpu()
    with torch.inference_mode():
        chunks = [head(torch.from_numpy(features[start : start + 8192])) for start in range(0, len(features), 8192)]
    return torch.cat(chunks).numpy()


def extract_scores(model: Model, images: ImageSet, loading: Loading) -> tuple[StoredFeatures, NDArray[np.float32]]:
    """Returns the logits (n, classes) of a model's classifier, and what was extracted of the images for them.

    A distilled network has two classifiers of different features, whose mean only the whole network computes.
    """
    if len(heads_of(model.network)) == 1:
        features = extract(model, images, loading)
        return features, class_scores(model, features)
    import torch

    class Whole(torch.nn.Module):
        """Gives the network's logits for what the network itself would give features for."""

        def __init__(self) -> None:
            super().__init__()
            self.whole = model.network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.whole(pixels))

    whole = replace(
        model,
        sha256=f"{model.sha256} logits",
        backbone=replace(model.backbone, feature_size=len(model.backbone.classes)),
        load=Whole,
    )
    logits = extract(whole, images, loading)
    return logits, logits[:]


def _finished(folder: Path, shape: tuple[int, int]) -> StoredFeatures | None:
    """Returns the features in a folder; None if they are unfinished, or do not fit `shape`."""
    try:
        num_cut = json.loads((folder / FINISHED).read_text(encoding="utf-8"))["num_cut"]
        with (folder / FEATURES).open("rb") as file:
            np.lib.format.read_magic(file)
            found, _, kind = np.lib.format.read_array_header_1_0(file)
            offset, num_bytes = file.tell(), os.fstat(file.fileno()).st_size
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    fits = found == shape and kind == np.dtype("<f4") and num_bytes - offset == 4 * shape[0] * shape[1]
    return StoredFeatures(folder / FEATURES, shape, offset, num_cut) if fits and type(num_cut) is int else None


def _fill(folder: Path, shape: tuple[int, int], model: Model, images: ImageSet, loading: Loading) -> None:
    """Extracts this rank's slice of the features; the last one to finish marks them as finished."""
    if not ranks.RANK:
        (folder / FINISHED).unlink(missing_ok=True)
        np.lib.format.open_memmap(folder / FEATURES, mode="w+", dtype=np.float32, shape=shape)
        # Allocating the file now reports a full disk as an error; a write into the memory map would end in SIGBUS.
        with (folder / FEATURES).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    ranks.barrier()
    rows = np.lib.format.open_memmap(folder / FEATURES, mode="r+")
    start, stop = (shape[0] * rank // ranks.WORLD_SIZE for rank in (ranks.RANK, ranks.RANK + 1))
    num_cut = 0
    with progress(stop - start, desc=images.name, leave=False, is_shown=not ranks.RANK) as bar:
        for batch, num_cut_here in _batches(model, images, loading, range(start, stop)):
            num_cut += num_cut_here
            rows[start : start + len(batch)] = batch
            start += len(batch)
            bar.update(len(batch))
    rows.flush()
    num_cut = ranks.sum_of(num_cut)
    if not ranks.RANK:
        scratch = folder / f".{FINISHED}.tmp"
        scratch.write_text(json.dumps({"num_cut": num_cut}), encoding="utf-8")
        scratch.replace(folder / FINISHED)
    ranks.barrier()


def _batches(
    model: Model, images: ImageSet, loading: Loading, numbers: range
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yields the features (b, d) of each batch, and how many of its image files are truncated."""
    import torch

    loader = crop_loader(
        images,
        model.backbone.input_size,
        numbers,
        batch_size=loading.batch_size,
        workers=loading.workers,
        advice="give fewer --workers or a smaller --batch-size",
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forward = _Forward(model, device, loading.precision)
    for crops, _, num_cut in checked_batches(loader):
        yield forward(crops.to(device, non_blocking=True)), num_cut


class _Forward:
    """Maps pixels (n, side, side, 3) in 0 to 255 to float32 features (n, d), the classifier's input."""

    def __init__(self, model: Model, device: Any, precision: str) -> None:
        import torch

        self.model, self.network = model, model.network.to(device)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        torch.backends.cudnn.allow_tf32 = precision != "float32"
        backbone = model.backbone
        self.mean, self.std = (torch.tensor(v, device=device)[:, None, None] for v in (backbone.mean, backbone.std))
        self.is_checked = False
        self.buffer: Any = None

    def __call__(self, crops: Any) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode(), self.autocast:
            pixels = self._normalized(crops)
            features = self._features(pixels)
            if not self.is_checked:
                self._check(features, pixels)
        found: NDArray[np.float32] = features.float().cpu().numpy()
        return found

    def _normalized(self, crops: Any) -> Any:
        """Returns contiguous pixels like ToTensor's: results in another memory format differ in the last bits.

        One buffer for all batches takes a tenth of the time of new tensors on a CPU, where each new page is cleared first.
        """
        import torch

        if self.buffer is None or len(self.buffer) < len(crops):
            count, height, width, channels = crops.shape
            self.buffer = torch.empty(count, channels, height, width, device=crops.device)
        pixels = self.buffer[: len(crops)].copy_(crops.permute(0, 3, 1, 2))
        return pixels.div_(255).sub_(self.mean).div_(self.std)

    def _features(self, pixels: Any) -> Any:
        try:
            return features_of(self.network, pixels)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            if "out of memory" in str(error):
                raise UserError(
                    f"the device has too little memory for --batch-size {len(pixels)}; give a smaller one"
                ) from None
            if self.is_checked:
                raise
            side = self.model.backbone.input_size
            raise UserError(
                f"'{self.model.name}' cannot take images of {side}x{side} pixels ({first_line(error)}); choose another "
                "network"
            ) from None

    def _check(self, features: Any, pixels: Any) -> None:
        """Checks on the first batch that a lone classifier's output for these features is the network's own.

        Raises:
            UserError: it is not, or features are not finite.
        """
        import torch

        is_fine = features.dim() == 2 and features.shape[1] == self.model.backbone.feature_size
        if features.dim() == 2 and not torch.isfinite(features).all():
            raise UserError(f"'{self.model.name}' gives features that are NaN or infinite; train it again")
        heads = list(heads_of(self.network).values())
        if is_fine and len(heads) == 1:
            scores = self.network(pixels)
            tolerance = 0.1 if torch.is_autocast_enabled(pixels.device.type) else 1e-3
            is_fine = isinstance(scores, torch.Tensor) and scores.dim() == 2
            is_fine = is_fine and torch.allclose(
                heads[0](features).float(), scores.float(), rtol=tolerance, atol=tolerance
            )
        if not is_fine:
            raise UserError(
                f"'{self.model.name}' does not end in one linear classifier of pooled features, which the "
                "evaluation needs; choose another network"
            )
        self.is_checked = True
