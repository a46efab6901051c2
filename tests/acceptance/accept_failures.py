"""Plants faults in images, workers and stores through `make`; tabulates how each ends and what the clone looks like.

python -m tests.acceptance.accept_failures     # about ten minutes
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from builders.format.open_clone import open_clone
from tests.acceptance.accept_scale import S3, fetch, serve_s3
from tests.acceptance.record import ROOT, record
from tests.tiny_pipeline import overflowing_vae, write_tiny_pipeline

PLANTED = ROOT / "tests" / "planted"
RECIPE = f"{PLANTED / 'planted_sd.py'}/noise"
NUM_SHARDS = 12
WAIT = "import builders.coordination.policy as p; p.MIN_SECONDS = 5.0; p.SECONDS_BEFORE_FIRST = 8.0\n"
"""Makes `make` notice a hung worker after seconds instead of an hour; changes nothing else."""
MAIN = "from builders.cli.main import main; main()"
OUTAGE = 120.0


def start(
    out: object, *options: object, faults: dict[str, Any], gpus: str = "", recipe: str = RECIPE, before: str = "",
    environment: dict[str, str] | None = None,
) -> "subprocess.Popen[str]":  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(PLANTED)])
    return subprocess.Popen(
        [sys.executable, "-c", before + MAIN, "make", recipe, str(out), *map(str, options)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PLANTED": json.dumps(faults), "CUDA_VISIBLE_DEVICES": gpus,
             **(environment or {})},
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    out, error = process.communicate()
    return process.returncode, "\n".join(line for line in (out + error).splitlines() if " img (" not in line)


def status(out: object) -> str:
    path = os.pathsep.join([str(ROOT), str(PLANTED)])
    done = subprocess.run(
        [sys.executable, "-m", "builders", "status", str(out)], text=True, capture_output=True, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    return "; ".join(done.stdout.splitlines()[1:])


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "data").rglob("*.tar"))}


def card(out: Path) -> str:
    text = (out / "README.md").read_text() if (out / "README.md").exists() else ""
    section = text.partition("## Flagged and broken images")[2].partition("<!-- /fakeit")[0]
    rows = re.findall(r"^\| n\d+ .*$", section, re.MULTILINE)
    return "; ".join([*re.findall(r"^\d[\d,]* images are broken", section, re.MULTILINE), *rows]) or "no card yet"


class Table:
    def __init__(self) -> None:
        self.rows: list[str] = []

    def add(self, what: str, code: int, out: Path, same: str, printed: str, shown: object = None) -> None:
        notes = [line.strip() for line in printed.splitlines() if line.startswith("fakeit-build:")]
        line = "; ".join(notes) or printed.splitlines()[0]
        line = re.sub(r"/tmp/tmp\w+", "…", line.replace(str(out), "OUT").replace("|", "/"))
        message = re.sub(r"/tmp/tmp\w+", "…", status(shown or out).replace("|", "/"))
        self.rows.append(
            f"| {what} | {code} | {same} | {line[:240]} | {message[:200]} | {card(out).replace('|', '/')} |"
        )
        print(self.rows[-1], flush=True)


def same_as(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    equal = sum(found.get(name) == content for name, content in expected.items())
    return f"{len(found)} of {len(expected)}, {equal} equal"


def images(folder: Path, table: Table, whole: Path, whole_dropped: Path) -> None:
    """Plants images that are broken or flagged at every attempt, and a setting that breaks every image."""
    key = open_clone(str(whole)).metadata(5)["key"][7].as_py()
    code, printed = ended(start(folder / "broken", faults={"broken": [key]}))
    found = open_clone(str(folder / "broken"))
    row = found.metadata(5).to_pylist()[7]
    assert code == 0 and (row["key"], row["broken"], row["attempt"], row["verdict"]) == (key, 1, 9, "broken")
    table.add(
        "one image broken at every attempt",
        code,
        folder / "broken",
        same_as(shards(folder / "broken"), shards(whole)),
        printed,
    )
    assert sum(shards(folder / "broken")[n] == c for n, c in shards(whole).items()) == NUM_SHARDS - 1
    code, printed = ended(start(folder / "flagged", "--safety", "drop", faults={"flagged": [key]}))
    row = open_clone(str(folder / "flagged")).metadata(5).to_pylist()[7]
    assert code == 0 and (row["nsfw"], row["attempt"], row["verdict"]) == (1, 9, "nsfw")
    same = same_as(shards(folder / "flagged"), shards(whole_dropped))
    table.add("one image flagged at every attempt, `--safety drop`", code, folder / "flagged", same, printed)
    code, printed = ended(start(folder / "all", "--shard-size", 240, faults={"all_broken": True}))
    assert code == 2 and "of the first 200 images came out broken" in printed
    table.add("every image broken", code, folder / "all", "0", printed)


def workers(folder: Path, table: Table, whole: Path) -> None:
    """Runs three workers, one of which runs out of memory, hangs, or has a full disk."""
    slow = {"seconds": 0.05, "worker": "1"}
    for name, what, faults, before, code_expected in (
        ("memory", "one worker of three always out of memory, fixed batch size", {"fault": "memory for ever"}, "", 0),
        ("hung", "one worker of three hangs (noticed after 8 s here, not an hour)", {"fault": "hangs"}, WAIT, 0),
        ("full", "full scratch of one node (one worker's writes end in ENOSPC)", {"fault": "full"}, "", 0),
    ):
        code, printed = ended(start(folder / name, faults={**slow, **faults}, gpus="0,1,2", before=before))
        assert code == code_expected and shards(folder / name) == shards(whole), printed
        table.add(what, code, folder / name, same_as(shards(folder / name), shards(whole)), printed)
    code, printed = ended(start(folder / "none", faults={"fault": "memory for ever", "worker": "0"}, gpus="0"))
    assert code == 1 and "out of memory with batches of 5" in printed and "no worker is left" in printed
    table.add("the only worker always out of memory", code, folder / "none", "0", printed)
    auto, longer = {"fault": "memory", "worker": "1", "seconds": 0.1, "delay": 4}, ("--images-per-class", 240)
    assert ended(start(folder / "long", *longer, faults={}))[0] == 0
    code, printed = ended(start(folder / "auto", *longer, "--batch-size", "auto", faults=auto, gpus="0,1,2"))
    sizes = {execution["batch_size"] for execution in open_clone(str(folder / "auto")).manifest.executions}
    assert code == 0 and sizes == {1, 4}, (sizes, printed)
    what = f"one worker of three with memory for one image, `--batch-size auto` (batches of {sorted(sizes)})"
    same = f"{len(shards(folder / 'auto'))}, not compared: the json names the batch size"
    table.add(what, code, folder / "auto", same, printed)


def stores(folder: Path, table: Table, whole: Path) -> None:
    """Uses an S3 server that fails every request for two minutes, and one that does so for longer than `--patience`."""
    server, environment = serve_s3(0.0, "outage")
    scratch = folder / "scratch"
    options = ("--scratch", scratch)
    process = start("s3://outage/clone", *options, faults={"seconds": 0.5}, environment=environment)
    begun = time.monotonic()
    time.sleep(12)
    server.share_failing = 1.0
    threading.Timer(OUTAGE, lambda: setattr(server, "share_failing", 0.0)).start()
    code, printed = ended(process)
    fetch("s3://outage/clone", folder / "outage")
    assert code == 0 and shards(folder / "outage") == shards(whole) and time.monotonic() - begun > OUTAGE
    same = same_as(shards(folder / "outage"), shards(whole))
    table.add(f"a store down for {OUTAGE:.0f} s", code, folder / "outage", same, printed, "s3://outage/clone")
    gone(folder, table, whole, server, environment)


def gone(folder: Path, table: Table, whole: Path, server: S3, environment: dict[str, str]) -> None:
    scratch, log = folder / "kept", folder / "made.txt"
    options = ("--scratch", scratch, "--patience", 0.1)
    faults = {"seconds": 1.0, "log": str(log)}
    # By default the client itself retries each request for minutes.
    environment = {**environment, "AWS_MAX_ATTEMPTS": "1"}
    process = start("s3://outage/gone", *options, faults=faults, environment=environment)
    # Waits until the run is in the middle of the third shard.
    while not (log.exists() and len(log.read_text().split()) == 2 * 20 + 10):
        time.sleep(0.05)
    server.share_failing = 1.0
    code, printed = ended(process)
    kept = [path.name for path in scratch.rglob("*.tar")]
    assert code == 75 and len(kept) == 1 and "Traceback" not in printed, printed
    server.share_failing = 0.0
    num_made = len(set(log.read_text().split()))
    table.add(
        "a store down for longer than `--patience`", code, folder / "gone", f"its {len(kept)} finished tar kept", printed,
        "s3://outage/gone",
    )  # fmt: skip
    code, printed = ended(start("s3://outage/gone", *options, faults=faults, environment=environment))
    fetch("s3://outage/gone", folder / "gone")
    made = log.read_text().split()
    assert code == 0 and shards(folder / "gone") == shards(whole) and not list(scratch.rglob("*.tar"))
    again = len(made) - len(set(made))
    same = same_as(shards(folder / "gone"), shards(whole))
    what = f"the same, run again ({num_made} images were generated before, {again} of them again)"
    table.add(what, code, folder / "gone", same, printed, "s3://outage/gone")
    assert again == 0


def pipelines(folder: Path, table: Table) -> None:
    """Runs the real pipeline in 16 bits with an autoencoder that overflows, and a run whose model does not exist."""
    write_tiny_pipeline(folder / "tiny")
    overflowing_vae(folder / "tiny", folder / "large")
    size = ("--width", 16, "--height", 16, "--num-inference-steps", 2, "--images-per-class", 4, "--shard-size", 20)
    for model, name in (("tiny", "whole"), ("large", "overflow")):
        options = (*size, "--dtype", "float16", "--model", folder / model)
        code, printed = ended(start(folder / f"sd-{name}", *options, faults={}, recipe="digits_sd/c_cfg2"))
        assert code == 0, printed
    found = open_clone(str(folder / "sd-overflow"))
    rows = [row for shard in range(len(found.manifest.shards)) for row in found.metadata(shard).to_pylist()]
    assert {(row["vae_dtype"], row["broken"], row["attempt"]) for row in rows} == {("float32", 0, 0)}
    done = subprocess.run(
        [sys.executable, "-m", "builders", "verify", str(folder / "sd-overflow"), "--deep"],
        text=True, capture_output=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    what = f"the real pipeline in float16, its autoencoder overflows ({len(rows)} images decoded in float32)"
    table.add(what, code, folder / "sd-overflow", "2 of 2, `verify --deep`: no faults", printed)
    code, printed = ended(start(folder / "config", "--model", folder / "no", faults={}, recipe="digits_sd/c_cfg2"))
    assert code == 2
    table.add("a model that does not exist", code, folder / "config", "0", printed)


def source(folder: Path, table: Table) -> None:
    """Makes a clone of real images, one of which breaks after the source was read."""
    from builders.embedded.digits import write_class_folders

    write_class_folders(folder / "scans")
    options = ("--source", folder / "scans" / "test", "--shard-size", 60)
    code, printed = ended(start(folder / "real", *options, faults={}, recipe="real_images/test"))
    assert code == 0
    image = sorted((folder / "scans" / "test").rglob("*.png"))[7]
    slow = "import builders.runners.local as l; run = l.run\ndef late(job):\n"
    slow += f"    import pathlib; p = pathlib.Path({str(image)!r}); p.write_bytes(b'x' * p.stat().st_size); return run(job)\n"
    slow += "l.run = late\n"
    code, printed = ended(start(folder / "unreadable", *options, faults={}, recipe="real_images/test", before=slow))
    assert code == 1 and str(image) in printed, printed
    made = len(list((folder / "unreadable").rglob("*.parquet")))
    line = next(line for line in printed.splitlines() if "failed:" in line)
    num_shards = len(shards(folder / "real"))
    table.add(
        "a source image that became unreadable", code, folder / "unreadable", f"{made} of {num_shards} made", line
    )
    assert made == num_shards - 1


def main() -> None:
    folder, table = Path(tempfile.mkdtemp()), Table()
    try:
        whole, whole_dropped = folder / "whole", folder / "whole-dropped"
        assert ended(start(whole, faults={}))[0] == 0 and len(shards(whole)) == NUM_SHARDS
        assert ended(start(whole_dropped, "--safety", "drop", faults={}))[0] == 0
        images(folder, table, whole, whole_dropped)
        workers(folder, table, whole)
        pipelines(folder, table)
        source(folder, table)
        stores(folder, table, whole)
    finally:
        shutil.rmtree(folder)
    record("failures", "What faults in images, workers and stores do to a clone", [
        "`python -m tests.acceptance.accept_failures`: an engine and a builder of another package (`tests/planted`)",
        f"plant faults in `make`; 240 images in {NUM_SHARDS} shards. moto's S3 server answers 503 while it is down.",
        "",
        "| fault | exit status | shards, and equal to an undisturbed run | `make` says | `status` says | card says |",
        "|---|---|---|---|---|---|",
        *table.rows,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
