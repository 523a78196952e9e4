"""A training module without a Trainer: a stand-in for what a step asks of one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from difflab.tasks.training_module import TrainingModule


def without_trainer(module: TrainingModule, *, rank: int = 0, world_size: int = 1, precision: str = "32-true") -> None:
    """`module.training_step` then leaves the gradients where they are, and changes no weight."""
    strategy = SimpleNamespace(
        reduce=lambda value, reduce_op: value, all_gather=lambda value, **_: value, backward=_backward
    )
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=world_size, global_rank=rank, strategy=strategy, precision=precision
    )
    vars(module)["update"] = lambda *_: None


def with_optimizers(module: TrainingModule) -> list[Optimizer]:
    """From now on `module.training_step` takes steps, of these optimizers."""
    vars(module).pop("update", None)
    optimizers = module.configure_optimizers()
    for one in optimizers:
        one.register_step_pre_hook(lambda optimizer, *_: module.on_before_optimizer_step(optimizer))
    module.trainer.strategy._lightning_optimizers = optimizers  # type: ignore[assignment]
    return optimizers


def _backward(loss: Tensor, optimizer: None, **options: Any) -> None:
    loss.backward(**options)
