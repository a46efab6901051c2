from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders.errors import UserError
from fakeit_train.checkpoint import State, load_checkpoint, make_state, newest_whole, save_checkpoint
from fakeit_train.config import TrainConfig
from fakeit_train.distributed import _has_other_buffers
from fakeit_train.objectives.base import Objective
from fakeit_train.optimizer import make_optimizer
from fakeit_train.settings import load_config

CONFIG = load_config("digits", [])
EVERYTHING = replace(CONFIG, precision="float16", optim=replace(CONFIG.optim, ema=0.9))


class Squares(Objective):
    """The sum of the squared outputs of a small network that has a teacher beside it."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), config.backbone)
        self.head = nn.Linear(2, 2)
        self.register_buffer("teacher", torch.zeros(2))

    def forward(self, crops: Any, labels: Any, prompt_ids: Any) -> Any:
        outputs = self.head(self.network(crops))
        self.teacher.lerp_(outputs.detach().mean(0), 0.1)  # type: ignore[operator]
        return (outputs - self.teacher).square().sum(), {}


def fresh(seed: int, config: TrainConfig = CONFIG) -> State:
    torch.manual_seed(seed)
    objective = Squares(config)
    return make_state(objective, make_optimizer(objective, config.optim), config, "cpu")


def trained(seed: int, config: TrainConfig = CONFIG) -> State:
    state = fresh(seed, config)
    for _ in range(seed + 1):
        take_step(state, torch.randn(8, 3))
    return state


def take_step(state: State, inputs: torch.Tensor) -> None:
    state.objective.zero_grad()
    state.scaler.scale(state.objective(inputs, None, None)[0]).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average:
        state.average.update_parameters(state.network)


def load(folder: Path, state: State) -> int:
    step = newest_whole(folder)
    if step:
        load_checkpoint(folder, step, state)
    return step


def same(a: State, b: State) -> bool:
    before, after = a.tensors(), b.tensors()
    is_equal = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    return is_equal and a.numbers() == b.numbers()


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING], ids=["plain", "everything"])
def test_checkpoint__a_restored_state_continues_like_the_saved_one(tmp_path: Path, config: TrainConfig) -> None:
    saved, other = trained(0, config), trained(1, config)
    save_checkpoint(tmp_path, 7, saved, num_kept=2)
    assert load(tmp_path, other) == 7
    for state in (saved, other):
        take_step(state, torch.ones(8, 3))
    assert same(saved, other)
    names = saved.tensors()
    assert ("scaler" in names) == any(name.startswith("average.") for name in names) == (config is EVERYTHING)
    assert "objective.teacher" in names and "optimizer.head.weight/momentum_buffer" in names


OPTIMIZERS = (
    "momentum", "sgd", "adamw", "muon", "nadamuon", "lamb", "lion", "adafactor", "adabelief", "madgrad", "mars", "novograd",
    "radamlegacy", "laprop", "adan", "nadamlegacy",
)  # fmt: skip


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_checkpoint__the_state_of_any_optimizer_is_restored(
    name: str, layout: torch.memory_format, tmp_path: Path
) -> None:
    config = replace(CONFIG, optim=replace(CONFIG.optim, name=name, learning_rate=1e-3))

    def made(seed: int) -> State:
        state = fresh(seed, config)
        more = [nn.Unflatten(1, (2, 1, 1)), nn.Conv2d(2, 2, 1), nn.Flatten()]
        state.objective.network = nn.Sequential(*state.objective.network.children(), *more)
        state.objective.to(memory_format=layout)
        return make_state(state.objective, make_optimizer(state.objective, config.optim), config, "cpu")

    saved, other = made(0), made(1)
    for _ in range(3):
        take_step(saved, torch.randn(8, 3))
    save_checkpoint(tmp_path, 3, saved, num_kept=2)
    load(tmp_path, other)
    assert same(saved, other)
    for parameter, state in other.optimizer.state.items():
        assert all(
            v.stride() == parameter.stride() for v in state.values() if getattr(v, "shape", None) == parameter.shape
        )
    for state in (saved, other):
        take_step(state, torch.ones(8, 3))
        take_step(state, torch.ones(8, 3).cumsum(0))
    assert same(saved, other)


def test_checkpoint__frozen_layers_and_no_update_yet_are_no_fault(tmp_path: Path) -> None:
    config = replace(CONFIG, optim=replace(CONFIG.optim, name="adamw"))
    save_checkpoint(tmp_path, 1, fresh(0, config), num_kept=2)
    other = fresh(1, config)
    assert load(tmp_path, other) == 1 and not other.optimizer.state


def test_checkpoint__one_without_a_parameter_or_of_another_layout_is_refused(tmp_path: Path) -> None:
    state = trained(0)
    numbers = state.numbers()
    with pytest.MonkeyPatch.context() as patch:
        del numbers["parameters"]["head.weight"]
        patch.setattr(State, "numbers", lambda self: numbers)
        save_checkpoint(tmp_path, 1, state, num_kept=2)
    with pytest.raises(UserError, match=r"no state of the optimizer for 'head.weight'"):
        load(tmp_path, trained(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakeit_train.checkpoint.LAYOUT", "1")
        save_checkpoint(tmp_path, 2, state, num_kept=2)
    with pytest.raises(UserError, match="is from another version of fakeit"):
        load(tmp_path, trained(0))
    save_checkpoint(tmp_path, 3, state, num_kept=2)
    other = trained(0, replace(CONFIG, optim=replace(CONFIG.optim, weight_decay=0.0)))
    with pytest.raises(UserError, match="other parameter groups"):
        load(tmp_path, other)


def test_checkpoint__exports_the_ema_if_there_is_one() -> None:
    plain, averaged = trained(3), trained(3, EVERYTHING)
    assert plain.learned is plain.network and averaged.average and averaged.learned is averaged.average.module
    assert not torch.equal(averaged.learned.state_dict()["0.weight"], averaged.network.state_dict()["0.weight"])


def test_checkpoint__keeps_the_newest_two(tmp_path: Path) -> None:
    for step in range(1, 5):
        save_checkpoint(tmp_path, step, trained(0), num_kept=2)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"step-0000000{s}.safetensors" for s in (3, 4)
    ]


def test_checkpoint__a_missing_one_is_step_0_and_a_damaged_one_falls_back(tmp_path: Path) -> None:
    assert load(tmp_path, trained(0)) == 0
    for step in (1, 2):
        save_checkpoint(tmp_path, step, trained(step), num_kept=2)
    newest, older = sorted(tmp_path.glob("*.safetensors"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    state = trained(0)
    with pytest.warns(UserWarning, match="step-00000002.safetensors' is missing or damaged; an older one is used"):
        assert load(tmp_path, state) == 1
    assert same(state, trained(1))
    older.unlink()
    with pytest.raises(UserError, match="are damaged; remove it to train from the start"), pytest.warns(UserWarning):
        newest_whole(tmp_path)


def test_optim__no_decay_on_biases_and_norms() -> None:
    state = trained(0)
    objective, optimizer = state.objective, state.optimizer
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert {name for name, p in objective.named_parameters() if id(p) in free} == {
        "network.0.bias",
        "network.1.weight",
        "network.1.bias",
        "network.2.bias",
        "head.bias",
    }


def test_optim__what_an_objective_has_beside_its_modules_is_learned() -> None:
    objective = Squares(CONFIG)
    objective.scale = nn.Parameter(torch.ones(()))
    optimizer = make_optimizer(objective, CONFIG.optim)
    learned = [one for settings in optimizer.param_groups for one in settings["params"]]
    assert {id(one) for one in learned} == {id(one) for one in objective.parameters()}
    assert len(learned) == len(list(objective.parameters()))


@pytest.mark.parametrize("name", ["kron", "adahessian"])
def test_optim__optimizers_that_cannot_resume_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"optimizer '{name}' keeps a state that a resumed run would lose"):
        make_optimizer(Squares(CONFIG), replace(CONFIG.optim, name=name))


def test_checkpoint__a_state_that_is_no_tensor_is_refused() -> None:
    state = trained(1)
    next(iter(state.optimizer.state.values()))["Q"] = [torch.zeros(2)]
    with pytest.raises(UserError, match="'Q' is a list, which a checkpoint cannot hold"):
        state.tensors()


def test_world__queues_are_synchronized_beside_batch_norm() -> None:
    objective = Squares(CONFIG)
    assert _has_other_buffers(objective)
    del objective.teacher
    assert not _has_other_buffers(objective)
