from __future__ import annotations

from pathlib import Path
from typing import Any

from callbacks.tiny import Tiny, loader, trainer
from difflab.callbacks.training_log import TrainingLog


def test_it_logs_at_the_multiples_alone(tmp_path: Path) -> None:
    """At the end a line of its own would be of fewer steps than the others."""

    class Noting(TrainingLog):
        def act(self, trainer: Any, pl_module: Any) -> None:
            noted.append(pl_module.train_step)

    noted: list[int] = []
    trainer(tmp_path, 5, [Noting(2)]).fit(Tiny(), loader(9))
    assert noted == [2, 4]
