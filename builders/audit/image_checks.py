"""What the pictures themselves say, read once: do they decode, do they show anything, their hash, their vectors.

Kept shard by shard under the shard's sha256, so an audit that was stopped goes on, and one of a grown clone looks at the new
shards alone.
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
"""A hash has the signs of so many by so many low frequencies: on 32x32 digits, 8 a side do not tell distinct ones apart."""
HASH_BYTES = HASH_SIDE * HASH_SIDE // 8


@dataclass(frozen=True, kw_only=True)
class ShardImages:
    """Of each sample of a shard, in its order."""

    spread: NDArray[np.float32]
    """Grey levels of 255 between the 1st and the 99th percentile; -1 of a picture that does not decode."""
    hashes: NDArray[np.uint8]
    """Perceptual hashes (n, HASH_BYTES)."""
    embeddings: NDArray[np.float16]
    """Unit vectors (n, d); (n, 0) without a scorer, and zeros of what is broken."""


@dataclass(frozen=True)
class Reader:
    clone: Clone
    embedder: Embedder | None
    folder: Path
    """Where results are kept."""
    batch_size: int
    num_threads: int

    def read(self, shard: int, on_images: Callable[[int], object] = lambda num_images: None) -> ShardImages:
        """Of one shard; from `folder` where it has been read before."""
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
    """Batches in which all pictures are broken have no width of their own."""
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
