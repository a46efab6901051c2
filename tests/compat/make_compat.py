"""Wrote `tests/compat/2`, once: clones, a network and results of format 2, which every later version must read.

python -m tests.compat.make_compat OUT      # never into tests/compat/2 again
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from builders.embedded.digits import write_class_folders
from builders.format.open_clone import open_clone
from tests.tiny_pipeline import write_tiny_checker, write_tiny_pipeline

ROOT = Path(__file__).parent.parent.parent
PLANTED = ROOT / "tests" / "planted"
CLASSES = "one, the number one\nseven, the number seven\nnine, the number nine\n"
SIZE = ("--width", 16, "--height", 16, "--num-inference-steps", 2, "--dtype", "float32", "--shard-size", 6)
NUM_SOURCE = 6
"""Number of real images of each of three classes."""
CONFIG = '''"""A network of a few thousand numbers, for tests."""

from builders.networks.backbone import Backbone
from fakeit_train.config import DataConfig, TrainConfig
from fakeit_train.crops.config import CropConfig, CropKind

CONFIG = TrainConfig(
    num_epochs=1,
    backbone=Backbone(
        library="timm",
        arch="resnet18",
        arch_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_width": 8},
        input_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    data=DataConfig(batch_size=6, num_workers=0),
    crops=CropConfig(kinds=(CropKind(num_crops=1, size=32, scale=(0.5, 1.0)),)),
)
'''


def run(package: str, *arguments: object, folder: Path, faults: dict[str, Sequence[str]] | None = None) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(PLANTED)]),
        "PLANTED": json.dumps(faults or {}),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", package, *map(str, arguments)]
    subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def write(out: Path) -> None:
    """Writes everything into a new folder."""
    out.mkdir(parents=True)
    write_tiny_pipeline(out / "model")
    write_tiny_checker(out / "model", 0.3)
    (out / "classes.txt").write_text(CLASSES)
    write_class_folders(out / "scans")
    for folder in sorted((out / "scans" / "test").iterdir())[:3]:
        for path in sorted(folder.iterdir())[:NUM_SOURCE]:
            (out / "source" / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / "source" / folder.name)
    shutil.rmtree(out / "scans")
    make = ("make", "custom_sd/c_cfg2")
    model = ("--source", "classes.txt", "--model", "model", *SIZE)
    # A clone of three shards, made with two executions.
    run(
        "builders",
        *make,
        "executions",
        *model,
        "--images-per-class",
        5,
        "--batch-size",
        4,
        "--shards",
        "0:2",
        folder=out,
    )
    run("builders", *make, "executions", *model, "--images-per-class", 5, "--batch-size", 3, folder=out)
    # An unfinished clone with two of three shards.
    run(
        "builders",
        *make,
        "unfinished",
        *model,
        "--images-per-class",
        5,
        "--batch-size",
        4,
        "--shards",
        "0:2",
        folder=out,
    )
    run(
        "builders", *make, "dropped", *model, "--images-per-class", 4, "--batch-size", 4, "--safety", "drop", folder=out
    )
    planted = ("make", PLANTED / "planted_sd.py/noise")
    run("builders", *planted, "broken", "--images-per-class", 5, "--shard-size", 10, folder=out, faults={
        "broken": ["n01_00000002"], "broken_once": ["n02_00000001"],
    })  # fmt: skip
    run("builders", "make", "real_images/test", "real", "--source", "source", "--shard-size", 6, folder=out)
    (out / "config.py").write_text(CONFIG)
    run("fakeit_train", "config.py", "--data", "real", "--out", "run", folder=out)
    run("fakeit_eval", "test", "run", "--data", "real", folder=out)
    shutil.rmtree(out / "run" / "checkpoint", ignore_errors=True)
    for name in ("executions", "dropped", "broken", "real"):
        assert open_clone(str(out / name)).manifest.num_samples


if __name__ == "__main__":
    write(Path(sys.argv[1]))
