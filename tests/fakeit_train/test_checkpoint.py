from pathlib import Path

import pytest
import torch
from torch import nn

from builders.format.errors import UserError
from fakeit_train.checkpoint import load_checkpoint, save_checkpoint
from fakeit_train.config import OptimConfig
from fakeit_train.optim import make_optimizer


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = make_optimizer(network, OptimConfig())
    network(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    return network, optimizer


def test_checkpoint__restores_weights_and_momentum(tmp_path: Path) -> None:
    (network, optimizer), (other, other_optimizer) = trained(0), trained(1)
    save_checkpoint(tmp_path, 7, network, optimizer)
    assert load_checkpoint(tmp_path, other, other_optimizer) == 7
    for net, opt in ((network, optimizer), (other, other_optimizer)):
        net.zero_grad()
        net(torch.ones(8, 3)).square().sum().backward()
        opt.step()
    assert all((a == b).all() for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True))


def test_checkpoint__keeps_the_newest_two(tmp_path: Path) -> None:
    for step in range(1, 5):
        save_checkpoint(tmp_path, step, *trained(0))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"step-0000000{s}.safetensors" for s in (3, 4)
    ]


def test_checkpoint__none_is_step_0_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, *trained(0)) == 0
    save_checkpoint(tmp_path, 1, *trained(0))
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path, *trained(0))


def test_optim__no_decay_on_biases_and_norms() -> None:
    network, optimizer = trained(0)
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert {name for name, p in network.named_parameters() if id(p) in free} == {
        "0.bias",
        "1.weight",
        "1.bias",
        "2.bias",
    }
