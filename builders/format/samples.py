"""A sample of a clone, and the range of bytes in a shard that holds its image."""

import hashlib
from dataclasses import dataclass

from builders.format.manifest import ShardEntry


@dataclass(frozen=True, slots=True)
class EncodedSample:
    key: str
    label: int
    image: bytes
    """The encoded file, such as a JPEG."""


@dataclass(frozen=True, slots=True)
class SampleView:
    """A sample without a copy of its image."""

    key: str
    label: int
    image: memoryview
    """A slice of the mapped shard, which keeps the file open, or fetched bytes. It cannot be pickled."""
    prompt_index: int = -1
    """Row of its prompt in the clone's `prompts.parquet`; -1 without that file."""


@dataclass(frozen=True, slots=True)
class ImageRange:
    """The range of bytes that holds a sample's image, and the sample's metadata."""

    shard: ShardEntry
    start: int
    """Offset of the image's first byte in the shard."""
    end: int
    """Offset after the image's last byte."""
    key: str
    label: int
    sha256: str
    """sha256 of the image; "" in a local clone, whose index has no hashes."""
    prompt_index: int = -1

    @property
    def num_bytes(self) -> int:
        return self.end - self.start

    def matches(self, image: bytes) -> bool:
        """Whether `image` has the sha256 of the metadata."""
        return hashlib.sha256(image).hexdigest() == self.sha256

    def view(self, image: bytes) -> SampleView:
        return SampleView(self.key, self.label, memoryview(image), self.prompt_index)
