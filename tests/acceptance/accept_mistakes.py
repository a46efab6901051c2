"""Checks that bad input ends in one sentence with the value and the way out and exit status 2, and loses nothing.

python -m tests.acceptance.accept_mistakes
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.acceptance.record import ROOT, command, record, run

MISSING = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "diffusers":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def prepare(folder: Path) -> Path:
    """Makes a clone and three damaged copies of it, `cut`, `half` and `mislabeled`; returns the clone."""
    clone, scans = folder / "clone", folder / "scans"
    cut, half, mislabeled = (folder / name for name in ("cut", "half", "mislabeled"))
    subprocess.run([sys.executable, "-m", "builders.embedded.digits", str(scans)], check=True, cwd=ROOT)
    run("build", "make", "real_images/test", clone, "--source", scans / "test", "--shard-size", 100)
    for copy in (cut, half, mislabeled):
        shutil.copytree(clone, copy)
    shard = next((cut / "data/000").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:5000])
    (half / "clone.json").unlink()
    (half / "_making").mkdir()
    (half / "_making" / "recipe.json").write_text("{}")
    manifest = json.loads((mislabeled / "clone.json").read_text())
    manifest["label_names"] = manifest["label_names"][:5]
    (mislabeled / "clone.json").write_text(json.dumps(manifest))
    (folder / "sitecustomize.py").write_text(MISSING)
    return clone


def main() -> None:
    rows, failures = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clone, out = prepare(folder), folder / "out"
        cut, half, mislabeled = (folder / name for name in ("cut", "half", "mislabeled"))
        without = {"PYTHONPATH": str(folder)}
        train = ("train", "digits", "--out", out, "--data")

        cases: list[tuple[str, tuple[object, ...], dict[str, str]]] = [
            ("unknown recipe", ("build", "make", "digit_sd/c_cfg2", out), {}),
            ("unknown config", ("build", "make", "digits_sd/c_cfg3", out), {}),
            ("unknown field", ("build", "make", "digits_sd/c_cfg2", out, "--prompt", "{x}"), {}),
            ("unknown setting", ("train", "digits", "--data", clone, "--out", out, "--set", "num_epoch=3"), {}),
            ("unwritable output", ("build", "make", "digits_sd/c_cfg2", "/proc/x"), {}),
            ("another recipe in the output", ("build", "make", "digits_sd/c_cfg2", clone), {}),
            ("truncated shard, training", (*train, cut), {}),
            ("half-written clone, verify", ("build", "verify", half), {}),
            ("half-written clone, training", (*train, half), {}),
            ("label out of range, training", (*train, mislabeled), {}),
            ("no clone", (*train, folder / "nothing"), {}),
            ("no backbone", ("eval", "test", folder / "nothing", "--data", clone), {}),
            ("missing extra", ("build", "make", "digits_sd/c_cfg2", out), without),
        ]
        before = digest(clone)
        for what, arguments, more in cases:
            shutil.rmtree(out, ignore_errors=True)
            ended = subprocess.run(
                command(*arguments), capture_output=True, text=True, cwd=ROOT, env={**os.environ, **more}, check=False
            )
            message = ended.stderr.strip().replace(scratch, "…")
            good = ended.returncode == 2 and len(message.splitlines()) == 1 and message.startswith("fakeit-")
            failures += not good
            rows.append(
                f"| {what} | {ended.returncode} | {message if good else 'NOT ONE SENTENCE: ' + message[-200:]} |"
            )
        faults = subprocess.run(command("build", "verify", cut), capture_output=True, text=True, cwd=ROOT, check=False)
        lines = [
            "| mistake | exit status | message |",
            "|---|---|---|",
            *rows,
            "",
            f"`verify` of the clone with the truncated shard ends with exit status {faults.returncode}; its first line is "
            f"`{faults.stdout.splitlines()[0]}`",
            "",
            f"The clone that these commands were given is unchanged, byte for byte: **{digest(clone) == before}**",
        ]
        record("mistakes", "Messages for bad input", lines)
        assert not failures and digest(clone) == before and faults.returncode == 1


if __name__ == "__main__":
    main()
