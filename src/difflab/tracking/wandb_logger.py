"""The Lightning logger of an open W&B run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from difflab.tracking.clock import STEP, ClockedLogger

if TYPE_CHECKING:
    from PIL.Image import Image
    from wandb import Run


class WandbLogger(ClockedLogger):
    """Logs to an open W&B run. W&B's own step is never passed: the axis of every plot is `train/step`."""

    def __init__(self, run: Run, artifacts: bool = True) -> None:
        super().__init__()
        self.run, self.artifacts = run, artifacts
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)

    @property
    @override
    def name(self) -> str:
        return "wandb"

    @property
    @override
    def version(self) -> str:
        return self.run.id

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.run.log(self.stamped(metrics, step))

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the configuration is passed to wandb.init, so that even a run that fails at once has it."""

    @override
    @rank_zero_only
    def log_image(self, key: str, image: Image) -> None:
        import wandb

        self.run.log(self.stamped({key: wandb.Image(image)}, None))

    @override
    @rank_zero_only
    def log_table(self, key: str, columns: list[str], rows: list[list[Any]]) -> None:
        import wandb
        from PIL.Image import Image

        cells = [[wandb.Image(cell) if isinstance(cell, Image) else cell for cell in row] for row in rows]
        self.run.log(self.stamped({key: wandb.Table(columns=[*columns], data=cells)}, None))

    @override
    @rank_zero_only
    def log_artifact(self, path: Path, name: str, kind: str, metadata: dict[str, Any]) -> None:
        """Adds the file as `<run id>-<name>`, unless the run was set up without artifacts."""
        import wandb

        if self.artifacts:
            artifact = wandb.Artifact(f"{self.run.id}-{name}", type=kind, metadata=metadata)
            artifact.add_file(str(path))
            self.run.log_artifact(artifact, aliases=["final"])
