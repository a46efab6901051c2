"""Writes dated result files into benchmarks/results, with the machine and the versions of the measurement."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("torch", "diffusers", "transformers", "datasets", "webdataset", "timm", "numpy", "pillow", "scikit-learn")


def machine() -> str:
    """Returns processor, cores, Python and library versions as one paragraph."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    libraries = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}; {libraries}."


def record(name: str, title: str, lines: list[str]) -> None:
    """Writes `benchmarks/results/<date>-<name>.md` and prints it."""
    today = datetime.date.today().isoformat()
    text = "\n".join([f"# {title}", "", f"{today}. {machine()}", "", *lines, ""])
    path = ROOT / "benchmarks" / "results" / f"{today}-{name}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    print(f"written to {path.relative_to(ROOT)}")


def command(*arguments: object) -> list[str]:
    """Returns the arguments that start one of our commands in this environment: command("build", "make", …)."""
    package = {"build": "builders", "train": "fakeit_train", "eval": "fakeit_eval"}[str(arguments[0])]
    return [sys.executable, "-m", package, *map(str, arguments[1:])]


def run(*arguments: object) -> str:
    """Runs one of our commands to its end and returns its output."""
    return subprocess.run(command(*arguments), check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
