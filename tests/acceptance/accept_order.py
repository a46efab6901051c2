"""Checks that a resumed run and a run in two processes see the global batches of an uninterrupted one.

python -m tests.acceptance.accept_order
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.record import command, record, run

EPOCHS, BATCH = 3, 56
SETTINGS = (f"num_epochs={EPOCHS}", f"data.batch_size={BATCH}", "log_keys=true", "checkpoint_every=7")


def batches(out: Path) -> dict[int, list[str]]:
    """Returns the keys of the global batch of each step, joined over the ranks in their order."""
    ranks = [
        {line["step"]: line["keys"] for line in map(json.loads, path.read_text().splitlines())}
        for path in sorted(out.glob("keys-*.jsonl"))
    ]
    return {step: [key for rank in ranks for key in rank[step]] for step in sorted(ranks[0])}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scans, clone = Path(folder) / "scans", Path(folder) / "clone"
        subprocess.run([sys.executable, "-m", "builders.embedded.digits", str(scans)], check=True)
        run("build", "make", "real_images/train", clone, "--source", scans / "train", "--shard-size", 130)
        requested = ("digits", "--data", clone, "--resume", "--set", *SETTINGS, "--out")
        run("train", *requested, Path(folder) / "whole")

        resumed = Path(folder) / "resumed"
        process = subprocess.Popen(command("train", *requested, resumed), start_new_session=True, stdout=-3, stderr=-3)
        while not (resumed / "checkpoint" / "step-00000035.safetensors").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        killed_at = max(batches(resumed))
        run("train", *requested, resumed)

        two = Path(folder) / "two"
        launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fakeit_train"]
        subprocess.run(
            [sys.executable, "-m", *launch, *map(str, requested), str(two)], check=True, stdout=-3, stderr=-3
        )

        whole = batches(Path(folder) / "whole")
        per_epoch = len(whole) // EPOCHS
        epochs = [
            [key for step in range(e * per_epoch + 1, (e + 1) * per_epoch + 1) for key in whole[step]] for e in range(3)
        ]
        num_repeated = sum(len(keys) - len(set(keys)) for keys in epochs)
        left_out = [1200 - len(keys) for keys in epochs]
        num_different = len({frozenset(keys) for keys in epochs})
        listed = run("train", "keys", "digits", "--data", clone, "--step", 30, "--set", *SETTINGS).split()[2:]
        lines = [
            f"1,200 real digits in 9 or 10 shards, global batch {BATCH}, {EPOCHS} epochs of {per_epoch} batches.",
            "",
            f"- killed (SIGKILL) after step {killed_at} of {len(whole)} and resumed, same batches: "
            f"**{batches(resumed) == whole}**",
            f"- two gloo processes under torchrun, same batches: **{batches(two) == whole}**",
            f"- keys that occurred twice in an epoch: **{num_repeated}**",
            f"- keys left out per epoch (fewer than {BATCH}): **{left_out}**; "
            f"different sets left out: {num_different} of {EPOCHS}",
            f"- `fakeit-train keys --step 30` prints the run's 31st batch: **{listed == whole[31]}**",
        ]
        record("order", "The same global batches after a resume and over two processes", lines)
        assert (
            batches(resumed) == whole == batches(two)
            and not num_repeated
            and max(left_out) < BATCH
            and listed == whole[31]
        )
        assert killed_at % per_epoch


if __name__ == "__main__":
    main()
