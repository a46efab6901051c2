"""Checks each image once: whether it decodes, how much it shows, its perceptual hash, its embedding.

The results of a shard are cached under the shard's sha256. So an audit that was stopped continues, and an audit of a
clone that has grown checks only the new shards.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.audit.embedder import Embedder
from builders.errors import UserError
from builders.format.open_clone import Clone
from builders.images.read import decode_image

VERSION = 1
HASH_SIDE = 12
"""A hash holds the signs of HASH_SIDE x HASH_SIDE low frequencies; 8 x 8 do not distinguish 32x32 digits."""
HASH_BYTES = HASH_SIDE * HASH_SIDE // 8


@dataclass(frozen=True, kw_only=True)
class ShardImages:
    """Results for the n samples of a shard, in the order of the shard."""

    spread: NDArray[np.float32]
    """Gray levels (of 255) between the 1st and the 99th percentile; -1 if the image does not decode. Shape (n,)."""
    hashes: NDArray[np.uint8]
    """Perceptual hashes (n, HASH_BYTES)."""
    embeddings: NDArray[np.float16]
    """Unit vectors (n, d), zeros for images that do not decode; (n, 0) without an image-text model."""


@dataclass(frozen=True)
class Reader:
    """Checks the shards of a clone and caches the results."""

    clone: Clone
    embedder: Embedder | None
    folder: Path
    """Folder for cached results."""
    batch_size: int
    num_threads: int

    def read(self, shard: int, on_images: Callable[[int], object] = lambda num_images: None) -> ShardImages:
        """Returns the results for a shard; takes them from `folder` if it was checked before."""
        entry = self.clone.manifest.shards[shard]
        path = self.folder / self._key() / f"{entry.sha256}.npz"
        found = _load(path, entry.num_samples)
        if found is None:
            found = self._look(shard, on_images)
            _save(path, found)
        else:
            on_images(entry.num_samples)
        return found

    def _key(self) -> str:
        embedder = self.embedder.revision if self.embedder else ""
        return hashlib.sha256(f"{VERSION}\n{HASH_SIDE}\n{embedder}".encode()).hexdigest()[:32]

    def _look(self, shard: int, on_images: Callable[[int], object]) -> ShardImages:
        first = self.clone.shard_starts[shard]
        numbers = range(first, first + self.clone.manifest.shards[shard].num_samples)
        batches = [numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size)]
        looks: list[_Look] = []
        embeddings: list[NDArray[np.float16]] = []
        with ThreadPoolExecutor(self.num_threads) as pool:
            ahead = self._submit(pool, batches[0])
            for batch in range(len(batches)):
                now = [future.result() for future in ahead]
                ahead = self._submit(pool, batches[batch + 1]) if batch + 1 < len(batches) else []
                embeddings.append(self._embed([look.pixels for look in now]))
                looks += [_Look(pixels=None, spread=look.spread, hash=look.hash) for look in now]
                on_images(len(now))
        return ShardImages(
            spread=np.array([look.spread for look in looks], np.float32),
            hashes=np.frombuffer(b"".join(look.hash for look in looks), np.uint8).reshape(-1, HASH_BYTES),
            embeddings=_stacked(embeddings),
        )

    def _submit(self, pool: ThreadPoolExecutor, numbers: Sequence[int]) -> "list[Future[_Look]]":
        return [pool.submit(_look_at, self.clone, number) for number in numbers]

    def _embed(self, pixels: "list[NDArray[np.uint8] | None]") -> NDArray[np.float16]:
        whole = [start for start, found in enumerate(pixels) if found is not None]
        if self.embedder is None or not whole:
            return np.zeros((len(pixels), 0), np.float16)
        embedded = self.embedder.embed_images([found for found in pixels if found is not None])
        embeddings = np.zeros((len(pixels), embedded.shape[1]), np.float16)
        embeddings[whole] = embedded
        return embeddings


@dataclass(frozen=True, kw_only=True)
class _Look:
    pixels: NDArray[np.uint8] | None
    spread: float
    hash: bytes


def _look_at(clone: Clone, number: int) -> _Look:
    import imagehash

    try:
        pixels = decode_image(clone.view(number).image)
    except ValueError:
        return _Look(pixels=None, spread=-1.0, hash=bytes(HASH_BYTES))
    gray = Image.fromarray(pixels).convert("L")
    low, high = np.percentile(np.asarray(gray), (1, 99))
    bits = imagehash.phash(gray, hash_size=HASH_SIDE).hash
    return _Look(pixels=pixels, spread=float(high - low), hash=np.packbits(bits).tobytes())


def _stacked(blocks: list[NDArray[np.float16]]) -> NDArray[np.float16]:
    """Concatenates the embeddings of batches. A batch without a valid image has width 0 and is filled with zeros."""
    width = max(block.shape[1] for block in blocks)
    return np.concatenate([block if block.shape[1] else np.zeros((len(block), width), np.float16) for block in blocks])


def _load(path: Path, num_samples: int) -> ShardImages | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = ShardImages(**{name: file[name] for name in file.files})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return found if len(found.spread) == len(found.embeddings) == num_samples else None


def _save(path: Path, images: ShardImages) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **vars(images))
    except OSError as error:
        raise UserError(
            f"'{path.parent}' cannot be written ({error.strerror}); set FAKEIT_CACHE to another folder"
        ) from None
    temporary.replace(path)
