"""Weights & Biases runs that stay in the run directory and always end with the right status."""

from __future__ import annotations

import contextlib
import os
import secrets
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from difflab.config.logger import WandbConfig
from difflab.errors import UserError
from difflab.files import write_text
from difflab.models.devices import is_first_process
from difflab.tracking.clock import STEP, ClockedLogger

if TYPE_CHECKING:
    from PIL.Image import Image
    from wandb import Run

    from difflab.tracking.rundir import RunDirectory

RUN_ID_FILE = "run_id"


class WandbLogger(ClockedLogger):
    """Log to an open W&B run. W&B's own step is never given: the axis of every plot is `train/step`."""

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
        """The resolved configuration went to wandb.init, so that even a run that dies at once has it."""

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
        """Add the file under `<run id>-<name>`, unless the run was set up without artifacts."""
        import wandb

        if self.artifacts:
            artifact = wandb.Artifact(f"{self.run.id}-{name}", type=kind, metadata=metadata)
            artifact.add_file(str(path))
            self.run.log_artifact(artifact, aliases=["final"])


@contextlib.contextmanager
def wandb_run(
    config: WandbConfig | None, directory: RunDirectory, resolved: dict[str, Any]
) -> Iterator[WandbLogger | None]:
    """Open a W&B run for the first process; None elsewhere, and where the configuration says null or disabled.

    resolved: the whole configuration as plain containers; it is part of the first record.
    Everything W&B writes lies in `<run directory>/wandb`. Its id is kept in `wandb/run_id`, so a resumed training goes
    on with the same run (offline as a further segment). The run is always finished: status 0 after the block, the
    status of a SystemExit, 130 after Ctrl-C, 2 after a UserError, 1 after any other exception.

    Raises UserError where this process has a W&B run already: the second would be merged into it silently.
    """
    if config is None or config.mode == "disabled" or not is_first_process():
        yield None
        return
    import wandb

    if wandb.run is not None:
        raise UserError(f"W&B run {wandb.run.id} is still open in this process; finish it before starting another")
    with _environment(_folders(directory.wandb, config)):
        run = wandb.init(
            mode=config.mode,
            project=config.project,
            entity=config.entity,
            group=config.group,
            tags=list(config.tags),
            notes=config.notes,
            name=directory.name,
            id=_kept_id(directory.wandb),
            resume="allow",
            config=resolved,
            save_code=config.save_code,
            settings=wandb.Settings(
                console="off", x_disable_stats=not config.system_stats, silent=config.mode == "offline"
            ),
        )
        status = 1
        try:
            yield WandbLogger(run, config.artifact)
            status = 0
        except BaseException as error:
            status = exit_status(error)
            raise
        finally:
            run.finish(exit_code=status)
            # W&B reads the folders once per process: without this a next run would lie in this one's folder.
            wandb.teardown(exit_code=status)


def exit_status(error: BaseException) -> int:
    """The status that a process ending with `error` exits with."""
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError) else 1


def _folders(root: Path, config: WandbConfig) -> dict[str, str]:
    # W&B puts its own `wandb` folder into WANDB_DIR.
    folders = {
        "WANDB_DIR": root.parent,
        "WANDB_DATA_DIR": root / "data",
        "WANDB_CACHE_DIR": root / "cache",
        "WANDB_ARTIFACT_DIR": root / "artifacts",
    }
    if config.mode == "offline":
        # Online, the user's own folder has to stay: it names the server and the account.
        folders["WANDB_CONFIG_DIR"] = root / "config"
    return {name: str(path) for name, path in folders.items()}


def _kept_id(root: Path) -> str:
    path = root / RUN_ID_FILE
    if not path.is_file():
        write_text(path, secrets.token_hex(6) + "\n")
    return path.read_text(encoding="utf-8").strip()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
