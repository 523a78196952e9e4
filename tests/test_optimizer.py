import pytest
import torch
from torch import nn

from difflab.config.optimizer import OptimizerConfig
from difflab.optimizer import build_optimizer


def stepped(kind: str, weight_decay: float) -> float:
    weight = nn.Parameter(torch.tensor([2.0]))
    config = OptimizerConfig.model_validate({"kind": kind, "lr": 0.1, "weight_decay": weight_decay, "eps": 1e-12})
    optimizer = build_optimizer(config, [weight])
    weight.grad = torch.tensor([1.0])
    optimizer.step()
    return weight.item()


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    assert stepped("adam", 0.0) == pytest.approx(1.9)


def test_adamw_takes_the_decay_apart_from_the_gradient_and_adam_does_not() -> None:
    assert stepped("adamw", 0.5) == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1)
    assert stepped("adam", 0.5) == pytest.approx(1.9)  # the gradient is 2 then, but Adam scales that away


def test_the_numbers_arrive() -> None:
    moving = nn.Parameter(torch.ones(1))
    config = OptimizerConfig(kind="adam", lr=3e-4, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.01)
    (group,) = build_optimizer(config, iter([moving])).param_groups
    assert group["params"] == [moving]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.8, 0.95), 1e-6, 0.01)
