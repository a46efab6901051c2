"""A sample of a clone, and where its image lies in a shard."""

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
    """A part of the mapped shard. It keeps the file open, and cannot be sent to other processes."""


@dataclass(frozen=True, slots=True)
class ImageRange:
    """Where a sample's image lies, and what the metadata says about it."""

    shard: ShardEntry
    start: int
    """First byte of the image in the shard."""
    end: int
    """The byte after its last one."""
    key: str
    label: int
    sha256: str
    """Hash of the image; "" in a local clone, whose index has none."""

    @property
    def num_bytes(self) -> int:
        return self.end - self.start

    def matches(self, image: bytes) -> bool:
        """Whether bytes are the image."""
        return hashlib.sha256(image).hexdigest() == self.sha256

    def view(self, image: bytes) -> SampleView:
        return SampleView(self.key, self.label, memoryview(image))
