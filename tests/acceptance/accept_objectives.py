"""Trains digits by objectives with and without labels, and compares their features with pixels and a random network.

python -m tests.acceptance.accept_objectives [FOLDER]     # about 45 minutes on two cores; finished runs in FOLDER are reused

All features are judged alike: k nearest neighbors (k = 20) and logistic regression (C = 1) learn from the features of the
clone's 2,000 images, or of 100 of them, and are tested on real digits. On transfer tasks, they learn from their own images.
"""

import csv
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from builders.classifiers import logistic_regression
from builders.classifiers.nearest_neighbors import nearest_neighbors, vote
from builders.digits_sd import DigitsSD
from builders.image_sets.annotation_files import DataRoot
from builders.image_sets.base import ImageSet
from builders.image_sets.open_image_set import open_image_set
from builders.networks.backbone import build_network, save_backbone
from fakeit_eval.evaluate.probe import _draw as draw
from fakeit_eval.features.extract import Loading, extract
from fakeit_eval.models import open_model
from fakeit_eval.open_tasks import open_tasks
from fakeit_eval.open_test_sets import open_test_sets
from fakeit_eval.reporting.intervals import interval
from fakeit_train.settings import load_config
from tests.acceptance.record import record, run

PER_CLASS, CAPTIONS, NUM_SEEDS, FEW = 200, 200, 3, 100
SETS = ("digits_clean", "digits_sketch", "digits_restyled")
TASKS = ("photos", "wine", "breast_cancer")
T_95 = 4.303
"""Quantile of Student's t for a 95 % interval of three values."""
ARMS = {
    "cross_entropy (labels)": ("digits", 4),
    "supervised_contrastive (labels)": ("digits_supervised_contrastive", 4),
    "multi_positive, K = 4": ("digits_multi_positive", 4),
    "multi_positive, K = 2": ("digits_multi_positive", 2),
    "multi_positive, K = 1": ("digits_multi_positive", 1),
    "self_distillation": ("digits_dino", 4),
}
"""Config and images per prompt of each arm."""
JUDGED = ("supervised_contrastive (labels)", "multi_positive, K = 4", "self_distillation")
FLOORS = ("pixels", "random network")
Features = Callable[[ImageSet], NDArray[np.float32]]


def write_captions(path: Path) -> None:
    """Writes captions that name a class by several of its words, in several orders, some with its definition."""
    dice = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "text"])
        for entry in DigitsSD.recipe("c_cfg2").classes:
            words = entry.name.split(", ")
            for _ in range(CAPTIONS):
                first, others = dice.sample(words[:2], 2), dice.sample(words[2:], len(words) - 2)
                name = ", ".join([*first, *others[: dice.randint(0, len(others))]])
                writer.writerow([entry.wnid, dice.choice((name, f"{name}, digit", f"{name}, {entry.definition}"))])


def train(folder: Path, arm: str, seed: int) -> Path:
    """Returns the folder of an arm's run; `measured.json` there has minutes and peak memory."""
    config, images_per_prompt = ARMS[arm]
    out = folder / f"{config}-{images_per_prompt}-{seed}"
    if not (out / "measured.json").is_file():
        begun = time.perf_counter()
        run("train", config, "--data", folder / f"k{images_per_prompt}", "--out", out, "--set", f"data.seed={seed}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        measured = {"minutes": (time.perf_counter() - begun) / 60, "memory": max(line["memory_gib"] for line in lines)}
        (out / "measured.json").write_text(json.dumps(measured))
    return out


def random_network(folder: Path, seed: int) -> Path:
    out = folder / f"random-{seed}"
    out.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    backbone = replace(load_config("digits", []).backbone, classes=())
    save_backbone(out, backbone, build_network(backbone))
    return out


def pixels(images: ImageSet) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.stack([images.decoded(number)[0] for number in range(len(images))]).astype(
        np.float32
    )
    return found.reshape(len(images), -1) / np.float32(255)


def features_of(run_folder: Path, folder: Path) -> Features:
    model = open_model(str(run_folder))
    return lambda images: extract(model, images, Loading(cache=folder / "cache", workers=0))[:]


def judge(features: Features, known: ImageSet) -> dict[str, float]:
    """Returns top-1 in percent by "<data> probe" and "<data> k-NN"."""
    found: dict[str, float] = {}

    def add(name: str, fitted: tuple[NDArray[np.float32], NDArray[np.int64]], tested: NDArray[np.float32],
            labels: NDArray[np.int64]) -> None:  # fmt: skip
        predicted = {
            "probe": logistic_regression.predict(logistic_regression.fit(1.0, fitted), tested),
            "k-NN": vote(*nearest_neighbors(fitted, tested, 20), 20),
        }
        found.update({f"{name} {kind}": 100 * float((one == labels).mean()) for kind, one in predicted.items()})

    learned, labels = features(known), known.labels
    for images in (opened.images for opened in open_test_sets(list(SETS), "")):
        numbers = np.array([known.class_names.index(name) for name in images.class_names])
        tested = features(images)
        add(images.name, (learned, labels), tested, numbers[images.labels])
        if images.name == SETS[0]:
            # A clone's first images have all classes equally often.
            add(f"{images.name}, {FEW} labels", (learned[:FEW], labels[:FEW]), tested, numbers[images.labels])
    for task in open_tasks(list(TASKS), DataRoot(root="")):
        data = draw(task.task, {name: (features(images), images.labels) for name, images in task.splits.items()}, 0)
        add(task.task.name, data.both, *data.test)
    return found


def summary(values: list[float]) -> tuple[float, float, float]:
    """Returns mean and 95 % interval: over seeds, or of a single accuracy on the clean digits by Wilson."""
    mean = statistics.mean(values)
    if len(values) == 1:
        low, high = interval(round(mean / 100 * 597), 597)
        return mean, low, high
    half = T_95 * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def shown(values: list[float]) -> str:
    mean, low, high = summary(values)
    return f"{mean:.1f} ± {(high - low) / 2:.1f}"


def rows(found: dict[str, dict[str, list[float]]], columns: list[str]) -> list[str]:
    table = ["| arm | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return table + [f"| {arm} | {' | '.join(shown(values[one]) for one in columns)} |" for arm, values in found.items()]


def verdicts(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Says of each objective whether it beats both floors on the clean digits, with disjoint intervals."""
    lines = []
    for kind in (
        f"{SETS[0]} probe",
        f"{SETS[0]} k-NN",
        f"{SETS[0]}, {FEW} labels probe",
        f"{SETS[0]}, {FEW} labels k-NN",
    ):
        highest = max(summary(found[floor][kind])[2] for floor in FLOORS)
        for arm in JUDGED:
            low = summary(found[arm][kind])[1]
            lines.append(f"- {kind}: {arm} from {low:.1f}, floors up to {highest:.1f}: **{low > highest}**")
    return lines


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    captions = folder / "captions.csv"
    write_captions(captions)
    for count in (4, 2, 1):
        options = ("--prompts", captions, "--images-per-prompt", count, "--images-per-class", PER_CLASS, "--workers", 2)
        run("build", "make", "digits_sd/c_cfg2", folder / f"k{count}", *options)
    found: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}

    def add(arm: str, scores: dict[str, float]) -> None:
        for name, value in scores.items():
            found.setdefault(arm, {}).setdefault(name, []).append(value)
        print(arm, {name: round(value, 1) for name, value in scores.items()}, flush=True)

    known = {count: open_image_set(str(folder / f"k{count}")) for count in (4, 2, 1)}
    add("pixels", judge(pixels, known[4]))
    for seed in range(NUM_SEEDS):
        add("random network", judge(features_of(random_network(folder, seed), folder), known[4]))
        for arm, (_, count) in ARMS.items():
            out = train(folder, arm, seed)
            costs[arm].append(json.loads((out / "measured.json").read_text()))
            add(arm, judge(features_of(out, folder), known[count]))
    clean = [f"{name} {kind}" for name in (SETS[0], f"{SETS[0]}, {FEW} labels") for kind in ("probe", "k-NN")]
    far = [f"{name} {kind}" for name in SETS[1:] for kind in ("probe", "k-NN")]
    transfer = [f"{name} {kind}" for name in TASKS for kind in ("probe", "k-NN")]
    record("objectives", "Objectives with and without labels, on synthetic digits", [
        "`python -m tests.acceptance.accept_objectives FOLDER`.",
        "",
        f"The demo's generator made 2,000 digits for each K: {PER_CLASS} a class, K images of each of {PER_CLASS} / K",
        f"captions. {NUM_SEEDS} training seeds. Top-1 in %, mean ± half of a 95 % interval (over seeds; for pixels, Wilson's",
        "for 597 images). Nearest neighbors (20) and logistic regression (C = 1) learn from features of the clone's images and",
        "are tested on real digits; on transfer tasks they learn from their own.",
        "",
        *rows(found, clean),
        "",
        *rows(found, far),
        "",
        *rows(found, transfer),
        "",
        "| arm | minutes | GiB at most |",
        "|---|---|---|",
        *(
            f"| {arm} | {statistics.mean(one['minutes'] for one in each):.1f} | {max(one['memory'] for one in each):.2f} |"
            for arm, each in costs.items()
        ),
        "",
        "Both floors beaten on the clean digits, with disjoint intervals:",
        "",
        *verdicts(found),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
