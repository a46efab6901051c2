"""The tests of this folder need a CUDA GPU: `make test-gpu`. With REHEARSE=1 they run on the CPU, but for memory."""

import os

import pytest
import torch

REHEARSES = os.environ.get("REHEARSE") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="this machine has no CUDA GPU")
    for item in items:
        if "tests/gpu/" in item.nodeid and not (REHEARSES and "memory" not in item.nodeid):
            item.add_marker(skip)
