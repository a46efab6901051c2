"""Contrastive objectives, compared with a float64 reference over the whole batch, on one and on two processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from builders.errors import UserError
from builders.networks.backbone import build_network
from fakeit_train.config import TrainConfig
from fakeit_train.contrast import contrast
from fakeit_train.objectives.base import build_objective, check_settings, spread, traits_of
from fakeit_train.settings import load_config

LAYER_NORM = 'backbone.arch_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "norm_layer": "layernorm2d"}'
NAMES = ("supervised_contrastive", "multi_positive", "self_distillation")
SMALL = [
    LAYER_NORM, "data.batch_size=12", "contrast.projector_width=16", "contrast.embedding_size=8",
    "distillation.projector_width=16", "distillation.embedding_size=8", "distillation.num_prototypes=24",
]  # fmt: skip
CONFIGS = dict(zip(NAMES, ("digits_supervised_contrastive", "digits_multi_positive", "digits_dino"), strict=True))


def config_of(name: str, *settings: str) -> TrainConfig:
    other = "contrast." if name == "self_distillation" else "distillation."
    return load_config(CONFIGS[name], [*(one for one in SMALL if not one.startswith(other)), *settings])


def reference(embeddings: Tensor, ids: list[int], temperature: float, queue: Tensor, queue_ids: list[int]) -> Tensor:
    """The loss of SupCon and StableRep for float64 embeddings (n, c, d), crop by crop; a sum over images."""
    num_images, num_crops = embeddings.shape[:2]
    rows = [*embeddings.flatten(0, 1), *queue]
    all_ids = [one for one in ids for _ in range(num_crops)] + queue_ids
    total = embeddings.new_zeros(())
    for i in range(num_images * num_crops):
        others = [a for a in range(len(rows)) if a != i and all_ids[a] >= 0]
        positives = [a for a in others if all_ids[a] == all_ids[i]]
        denominator = sum(torch.exp(rows[i] @ rows[a] / temperature) for a in others)
        for p in positives:
            share = torch.exp(rows[i] @ rows[p] / temperature) / denominator
            total = total - torch.log(share) / len(positives) / num_crops
    return total


CASES = {
    "several of an id": [0, 1, 0, 2, 1, 0],
    "each alone": [0, 1, 2, 3, 4, 5],
    "all of one id": [3, 3, 3, 3, 3, 3],
    "one alone": [7, 7, 7, 7, 7, 2],
}


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("num_queued", [0, 5])
@pytest.mark.parametrize("case", CASES)
def test_contrast__loss_and_gradient_equal_a_float64_reference(case: str, num_queued: int, num_crops: int) -> None:
    torch.manual_seed(0)
    ids = CASES[case]
    vectors = torch.randn(6, num_crops, 4, dtype=torch.float64)
    vectors[1] = vectors[0]  # equal similarities
    vectors.requires_grad_()
    queue = F.normalize(torch.randn(num_queued, 4, dtype=torch.float64), dim=-1)
    queue_ids = [0, 9, -1, 3, -1][:num_queued]
    expected = reference(F.normalize(vectors, dim=-1), ids, 0.2, queue, queue_ids)
    (slope,) = torch.autograd.grad(expected, vectors) if expected.requires_grad else (torch.zeros_like(vectors),)
    own = vectors.detach().float().requires_grad_()
    embeddings = F.normalize(own, dim=-1).flatten(0, 1)
    all_ids = torch.tensor(ids).repeat_interleave(num_crops)
    candidates = torch.cat([embeddings, queue.float()])
    candidate_ids = torch.cat([all_ids, torch.tensor(queue_ids, dtype=torch.int64)])
    found = contrast(embeddings, all_ids, candidates, candidate_ids, 0, 0.2)
    total = found.loss.sum() / num_crops
    total.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    assert own.grad is not None and torch.allclose(own.grad.double(), slope, rtol=1e-4, atol=1e-5)
    assert found.num_positives.tolist() == [
        sum(other == one for other in candidate_ids.tolist()) - 1 for one in all_ids.tolist()
    ]


def test_contrast__says_whether_the_nearest_is_a_positive() -> None:
    rows = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.2, 1.0]]), dim=-1)
    found = contrast(rows, torch.tensor([0, 0, 1, 2]), rows, torch.tensor([0, 0, 1, 2]), 0, 0.1)
    assert found.is_right.tolist() == [True, True, False, False]
    assert found.loss[2:].tolist() == [0, 0]


def random_batch(config: TrainConfig) -> dict[str, Tensor]:
    torch.manual_seed(1)
    kinds = config.crops_of_image.kinds
    crops = {
        f"crops{number}": torch.randint(0, 256, (12, kind.num_crops, kind.size, kind.size, 3), dtype=torch.uint8)
        for number, kind in enumerate(kinds)
    }
    return {"labels": torch.arange(12) % 3, "prompt_ids": torch.tensor([5, 5, 5, 5, 8, 8, 8, 9, 1, 1, 2, 3]), **crops}


WORKER = """
import os, sys, json
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from builders.networks.backbone import build_network
from fakeit_train.checkpoint import make_state
from fakeit_train.data.loader import Batch
from fakeit_train.distributed import join_world
from fakeit_train.objectives.base import build_objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.train_step import TrainStep
from tests.fakeit_train.objectives.test_contrastive import config_of, random_batch

name, out, settings = sys.argv[1], sys.argv[2], sys.argv[3:]
with join_world() as world:
    torch.use_deterministic_algorithms(True)
    config = config_of(name, *settings)
    torch.manual_seed(0)
    objective = build_objective(build_network(config.backbone), config)
    state = make_state(objective, make_optimizer(objective, config.optim), config, "cpu")
    step = TrainStep(config, world, state, 10)
    whole = random_batch(config)
    mine = {key: value.tensor_split(world.size)[world.rank] for key, value in whole.items()}
    crops = [mine[key] for key in sorted(mine) if key.startswith("crops")]
    batch = Batch(mine["labels"], [], mine["prompt_ids"], crops)
    losses = []
    for number in range(3):
        loss, _ = step(number, batch)
        losses.append(float(world.sum(loss)))
        if number == 0:
            named = objective.named_parameters()
            gradients = {f"gradient.{key}": value.grad.clone() for key, value in named if value.grad is not None}
    if world.is_main:
        buffers = {f"state.{key}": value for key, value in objective.state_dict().items()}
        found = {key: value.contiguous() for key, value in {**gradients, **buffers}.items()}
        save_file(found, out, {"losses": json.dumps(losses)})
"""


def steps(name: str, num_processes: int, out: Path, *settings: str) -> tuple[dict[str, Tensor], list[float]]:
    """Takes three steps on ranks of their own; returns gradients of the first one, the state, and the losses."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    script = out.parent / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, *(launch if num_processes > 1 else []), str(script), name, str(out), *settings]
    root = Path(__file__).parents[3]
    subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    with safe_open(out, "pt") as file:
        return load_file(out), json.loads(file.metadata()["losses"])


@pytest.mark.parametrize(("name", "settings"), [
    ("supervised_contrastive", ()), ("multi_positive", ("contrast.queue=40",)), ("self_distillation", ()),
])  # fmt: skip
def test_contrastive__two_ranks_have_the_loss_gradient_and_state_of_one(
    name: str, settings: tuple[str, ...], tmp_path: Path
) -> None:
    # SGD, because AdamW amplifies the rounding of small gradients.
    settings = (*settings, "optim.name=momentum", "optim.learning_rate=0.1", "optim.warm_up=0")
    (one, losses), (two, again) = (steps(name, count, tmp_path / f"{count}.safetensors", *settings) for count in (1, 2))
    assert again == pytest.approx(losses, rel=1e-5) and len({round(loss, 6) for loss in losses}) == 3
    assert set(one) == set(two)
    # Some gradients vanish but for rounding, so they are compared with the largest one.
    largest = {
        kind: max(float(v.abs().max()) for k, v in one.items() if k.startswith(kind) and v.numel())
        for kind in ("gr", "st")
    }
    for key, expected in one.items():
        assert torch.allclose(two[key].double(), expected.double(), rtol=1e-3, atol=1e-4 * largest[key[:2]]), key
    if name == "multi_positive":
        # Three steps of 12 images with 4 crops: the queue holds the last 40 of 48 embeddings of the last step.
        assert (
            one["state.queue_ids"].tolist()
            == random_batch(config_of(name))["prompt_ids"].repeat_interleave(4).tolist()[:40]
        )


def test_contrastive__the_whole_objective_equals_a_float64_reference() -> None:
    for name, key in (("supervised_contrastive", "labels"), ("multi_positive", "prompt_ids")):
        config = config_of(name)
        torch.manual_seed(0)
        objective: Any = build_objective(build_network(config.backbone), config)
        batch = random_batch(config)
        crops = [batch["crops0"], batch["crops1"]]
        loss, metrics = objective(crops, batch["labels"], batch["prompt_ids"])
        loss.backward()
        gradients = [value.grad.double() for value in objective.parameters()]
        objective.double().zero_grad()
        pixels = [(some.flatten(0, 1).permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.5 for some in crops]
        rows = [objective.projector(objective.network(some)).unflatten(0, (12, -1)) for some in pixels]
        embeddings = F.normalize(torch.cat(rows, 1), dim=-1)
        expected = reference(embeddings, batch[key].tolist(), config.contrast.temperature, torch.zeros(0, 8), [])
        expected.backward()
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        for found, value in zip(gradients, objective.parameters(), strict=True):
            assert torch.allclose(found, value.grad, rtol=1e-3, atol=1e-4 * float(value.grad.abs().max()) + 1e-9)
        positives = [4 * batch[key].tolist().count(one) - 1 for one in batch[key].tolist()]
        assert float(metrics["positives"]) == pytest.approx(sum(positives))


def test_self_distillation__loss_gradient_and_center_equal_a_float64_reference() -> None:
    config = config_of("self_distillation", "distillation.frozen_prototypes=0")
    settings = config.distillation
    torch.manual_seed(0)
    objective: Any = build_objective(build_network(config.backbone), config)
    with torch.no_grad():
        for value in objective.teacher.parameters():
            value.add_(0.05 * torch.randn_like(value))
        objective.center.normal_(std=0.02)
    batch = random_batch(config)
    crops = [batch["crops0"], batch["crops1"]]
    objective.before_step(0, 100)
    loss, _ = objective(crops, batch["labels"], batch["prompt_ids"])
    loss.backward()
    gradients = {name: value.grad.double() for name, value in objective.named_parameters() if value.grad is not None}
    objective.double().zero_grad()
    before = objective.center.clone()
    pixels = [(some.flatten(0, 1).permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.5 for some in crops]

    def logits(network: Any, projector: Any, some: Tensor) -> Tensor:
        features = projector.layers(network(some))
        return (F.normalize(features, dim=-1) @ F.normalize(projector.prototypes, dim=-1).T).unflatten(0, (12, -1))

    student = torch.cat([logits(objective.network, objective.projector, some) for some in pixels], 1)
    teacher = logits(objective.teacher["network"], objective.teacher["projector"], pixels[0]).detach()
    total, pairs = student.new_zeros(()), 0
    for seen in range(teacher.shape[1]):
        target = ((teacher[:, seen] - before) / settings.teacher_temperature_start).softmax(-1)
        for other in range(student.shape[1]):
            if other != seen:
                log_shares = (student[:, other] / settings.student_temperature).log_softmax(-1)
                total, pairs = total - (target * log_shares).sum(), pairs + 1
    (total / pairs).backward()
    assert float(loss) == pytest.approx(float(total / pairs), rel=1e-5)
    for name, found in gradients.items():
        slope = objective.get_parameter(name).grad
        assert torch.allclose(found, slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()) + 1e-9), name
    assert not any(name.startswith("teacher") for name in gradients)
    kept = {name: value.clone() for name, value in objective.teacher.named_parameters()}
    objective._total = objective._total.double()
    objective.after_step()
    mean = teacher.mean((0, 1))
    assert torch.allclose(objective.center, before * settings.center_momentum + mean * (1 - settings.center_momentum))
    for name, value in objective.teacher.named_parameters():
        where, _, inner = name.partition(".")
        own = getattr(objective, where).get_parameter(inner)
        expected = kept[name] * settings.teacher_momentum + own * (1 - settings.teacher_momentum)
        assert torch.allclose(value, expected, atol=1e-7), name


def test_self_distillation__schedules_and_frozen_prototypes() -> None:
    config = config_of("self_distillation", "distillation.frozen_prototypes=0.1", "distillation.teacher_temperature=0.08",
                       "distillation.teacher_temperature_start=0.04",
                       "distillation.temperature_warm_up=0.5", "distillation.teacher_momentum=0.9")  # fmt: skip
    torch.manual_seed(0)
    objective: Any = build_objective(build_network(config.backbone), config)
    batch = random_batch(config)
    for step, temperature, momentum, is_frozen in ((0, 0.04, 0.9, True), (25, 0.06, 0.9146, False), (50, 0.08, 0.95, False),
                                                   (100, 0.08, 1.0, False)):  # fmt: skip
        objective.before_step(step, 100)
        objective.zero_grad()
        objective([batch["crops0"], batch["crops1"]], batch["labels"], batch["prompt_ids"])[0].backward()
        assert float(objective.teacher_temperature) == pytest.approx(temperature, abs=1e-6)
        assert objective._momentum == pytest.approx(momentum, abs=1e-3)
        assert (float(objective.projector.prototypes.grad.abs().max()) == 0) is is_frozen


def test_self_distillation__the_teacher_has_no_dropout() -> None:
    settings = ["backbone.arch=vit_tiny_patch16_224", "distillation.num_prototypes=8", "backbone.input_size=32",
                'backbone.arch_options={"img_size": 32, "depth": 2, "drop_path_rate": 0.5, "proj_drop_rate": 0.5, '
                '"dynamic_img_size": true}']  # fmt: skip
    config = load_config("digits_dino", settings)
    config = replace(config, backbone=replace(config.backbone, arch_options=json.loads(settings[-1].partition("=")[2])))
    objective: Any = build_objective(build_network(config.backbone), config).train()
    crops = torch.randint(0, 256, (3, 2, 32, 32, 3), dtype=torch.uint8)
    first, again = (objective.features([crops], objective.teacher["network"]) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(objective.features([crops]), objective.features([crops]))


def test_objectives__the_spread_of_embeddings_is_1_if_uniform_and_0_if_collapsed() -> None:
    torch.manual_seed(0)
    assert float(spread(F.normalize(torch.randn(5000, 32), dim=-1))) == pytest.approx(1, abs=0.02)
    assert float(spread(torch.ones(10, 4) / 2)) == 0


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("multi_positive", ["optim.accumulation=2"], "compares all images of a batch, which optim.accumulation=2 would split"),
        ("multi_positive", ["data.batch_size=31"], "divisible by 2, not 31"),
        ("self_distillation", ["optim.ema=0.9"], "exports an average of weights already; leave out optim.ema=0.9"),
        ("supervised_contrastive", ["label_smoothing=0.1"], "label_smoothing is for objectives that train a classifier"),
        ("self_distillation", ["data.siblings=2"], "data.siblings is for objectives that compare images of a prompt"),
        ("self_distillation", ["contrast.temperature=0.5"], "settings of contrast are for other objectives than"),
        ("supervised_contrastive", ["optim.layers=head"], "optim.layers=head is for objectives that train a classifier"),
    ],
)  # fmt: skip
def test_objectives__settings_that_they_would_ignore_are_refused(name: str, settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as message:
        check_settings(config_of(name, *settings), 2)
    assert "\n" not in str(message.value)


def test_objectives__self_distillation_needs_two_crops() -> None:
    config = config_of("self_distillation", "augmentation=plain")
    with pytest.raises(UserError, match="needs two crops of an image"):
        build_objective(build_network(config.backbone), config)


def test_objectives__a_users_file_says_its_traits(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from fakeit_train.objectives.base import Traits\nTRAITS = Traits(has_classifier=False)\n"
        "from fakeit_train.objectives.supervised_contrastive import build\n"
    )
    assert not traits_of(str(path)).has_classifier and traits_of("cross_entropy").has_classifier
    config = load_config("digits_supervised_contrastive", [f"objective={path}"])
    assert build_objective(build_network(config.backbone), config).projector
