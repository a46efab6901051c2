from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from builders.errors import UserError
from fakeit_train.checkpoint import State, load_checkpoint, make_state, save_checkpoint
from fakeit_train.config import TrainConfig, load_config
from fakeit_train.optimizer import make_optimizer

CONFIG = load_config("digits", [])
EVERYTHING = replace(CONFIG, precision="float16", optim=replace(CONFIG.optim, ema=0.9))


def trained(seed: int, config: TrainConfig = CONFIG) -> State:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    state = make_state(network, make_optimizer(network, config.optim), config, "cpu")
    for _ in range(seed + 1):
        take_step(state, torch.randn(8, 3))
    return state


def take_step(state: State, inputs: torch.Tensor) -> None:
    state.network.zero_grad()
    state.scaler.scale(state.network(inputs).square().sum()).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average:
        state.average.update_parameters(state.network)


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING], ids=["plain", "everything"])
def test_checkpoint__a_restored_state_continues_like_the_saved_one(tmp_path: Path, config: TrainConfig) -> None:
    saved, other = trained(0, config), trained(1, config)
    save_checkpoint(tmp_path, 7, saved, num_kept=2)
    assert load_checkpoint(tmp_path, other) == 7
    for state in (saved, other):
        take_step(state, torch.ones(8, 3))
    before, after = saved.tensors(), other.tensors()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert ("scaler" in before) == any(name.startswith("average.") for name in before) == (config is EVERYTHING)


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


def test_checkpoint__a_missing_one_is_step_0_and_a_damaged_one_is_reported(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, trained(0)) == 0
    save_checkpoint(tmp_path, 1, trained(0), num_kept=2)
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path, trained(0))


def test_optim__no_decay_on_biases_and_norms() -> None:
    state = trained(0)
    network, optimizer = state.network, state.optimizer
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert {name for name, p in network.named_parameters() if id(p) in free} == {
        "0.bias",
        "1.weight",
        "1.bias",
        "2.bias",
    }
