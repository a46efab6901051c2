"""Measures the embedded model: top-1 on real test digits after training on its images alone, and whether it copies.

python -m tests.acceptance.accept_digits [FOLDER]      # about 25 minutes on two cores; clones in FOLDER are reused
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from builders.classes.digits import compose, enlarge, load_digits_split
from builders.recipes.prompts import TEMPLATES
from tests.acceptance.record import record, run

Pixels = NDArray[np.float32]


def real_split(split: str) -> tuple[Pixels, NDArray[np.int64]]:
    ink, labels, _ = load_digits_split(split)
    return np.stack([compose(enlarge(scan)).mean(axis=2) / 255 for scan in ink]).astype(np.float32), labels


def synthetic(folder: Path, recipe: str, per_class: int, *options: object) -> tuple[Pixels, NDArray[np.int64]]:
    """Makes a clone; returns gray values (n, 32, 32) in [0, 1] and labels, read through stock `load_dataset`."""
    import datasets

    out = folder / "-".join([recipe.split("/")[1], str(per_class), *map(str, options)]).replace("--", "")
    run("build", "make", recipe, out, "--images-per-class", per_class, "--workers", 2, *options)
    loaded: Any = datasets.load_dataset(str(out), split="train")
    pixels = np.stack([np.asarray(row["jpg"].convert("RGB"), dtype=np.float32).mean(axis=2) / 255 for row in loaded])
    return pixels, np.asarray(loaded["cls"])


def svc_accuracy(train: tuple[Pixels, NDArray[np.int64]], test: tuple[Pixels, NDArray[np.int64]]) -> float:
    """Returns top-1 in % of scikit-learn's SVC (RBF, C 10) on gray values."""
    model = SVC(C=10).fit(train[0].reshape(len(train[0]), -1), train[1])
    return 100 * float(model.score(test[0].reshape(len(test[0]), -1), test[1]))


def nearest(samples: Pixels, training: Pixels) -> NDArray[np.float32]:
    """Returns each sample's root mean squared difference to its nearest training image, shifted by up to one pixel."""
    shifted = np.concatenate([np.roll(training, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    flat, against = samples.reshape(len(samples), -1), shifted.reshape(len(shifted), -1)
    squares = (flat**2).sum(1)[:, None] - 2 * flat @ against.T + (against**2).sum(1)
    return np.sqrt(np.maximum(squares.min(axis=1), 0) / flat.shape[1])


def quantiles(distances: NDArray[np.float32]) -> str:
    return " | ".join(f"{value:.4f}" for value in np.quantile(distances, (0, 0.01, 0.1, 0.5, 0.9)))


def own_model(folder: Path, data: Path, name: str) -> dict[str, Any]:
    """Trains fakeit_train's digits network on a clone; returns its result on the real test digits."""
    run("train", "digits", "--data", data, "--out", folder / name, "--resume")
    run("eval", "test", folder / name, "--data", folder / "real-test")
    result: dict[str, Any] = json.loads(next((folder / name / "results").glob("test-*.json")).read_text())
    return result


def main(folder: Path) -> None:
    if not (folder / "scans").exists():
        subprocess.run([sys.executable, "-m", "builders.embedded.digits", str(folder / "scans")], check=True)
    for split in ("train", "test"):
        run("build", "make", f"real_images/{split}", folder / f"real-{split}", "--source", folder / "scans" / split)
    real, test = real_split("train"), real_split("test")

    clones = {guidance: synthetic(folder, f"digits_sd/c_cfg{guidance}", 200) for guidance in ("2", "7_5")}
    by_guidance = {
        g: svc_accuracy(synthetic(folder, "digits_sd/c_cfg2", 100, "--guidance-scale", g), test)
        for g in ("1", "3", "4")
    }
    own = {"synthetic": own_model(folder, folder / "c_cfg2-200", "run-synthetic")}
    own["real"] = own_model(folder, folder / "real-train", "run-real")
    own["7.5"] = own_model(folder, folder / "c_cfg7_5-200", "run-cfg7_5")
    prompts = {
        name: (svc_accuracy(synthetic(folder, f"digits_sd/{name}_cfg2", 100), test), template)
        for name, template in TEMPLATES.items()
    }
    svc = {name: svc_accuracy(data, test) for name, data in {**clones, "real": real}.items()}
    lines = [
        "Top-1 in % on the 597 real test digits, which the generator never saw.",
        "",
        "| trained on | SVC on pixels | fakeit_train's digits network |",
        "|---|---|---|",
        f"| 1,200 real digits | {svc['real']:.2f} | {own['real']['value']:.2f} |",
        f'| 2,000 synthetic, "c", guidance 2 | {svc["2"]:.2f} | {own["synthetic"]["value"]:.2f} |',
        f'| 2,000 synthetic, "c", guidance 7.5 | {svc["7_5"]:.2f} | {own["7.5"]["value"]:.2f} |',
        "",
        'SVC over guidance scales, 1,000 images of "c" (2,000 for 2 and 7.5): '
        + ", ".join(f"{g}: {v:.2f}" for g, v in sorted({**by_guidance, "2": svc["2"], "7.5": svc["7_5"]}.items())),
        "",
        "| prompt (guidance 2, 1,000 images) | SVC |",
        "|---|---|",
        *(f'| "{template}" | {value:.2f} |' for value, template in prompts.values()),
        "",
        "Does the model copy? Root mean squared difference (gray values 0 to 1) to the nearest of the 1,200 training",
        "images, each also shifted by one pixel in every direction: lowest value, 1st, 10th, 50th and 90th percentile.",
        "",
        "| images | lowest | 1 % | 10 % | 50 % | 90 % |",
        "|---|---|---|---|---|---|",
        f"| 597 real test digits | {quantiles(nearest(test[0], real[0]))} |",
        f"| 2,000 samples, guidance 2 | {quantiles(nearest(clones['2'][0], real[0]))} |",
        f"| 2,000 samples, guidance 7.5 | {quantiles(nearest(clones['7_5'][0], real[0]))} |",
    ]
    record("digits", "The embedded model: learning real digits from synthetic ones", lines)
    assert own["synthetic"]["value"] >= 95 and svc["2"] >= 97
    assert min(svc["2"], by_guidance["1"]) > svc["7_5"]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
