"""Grids of images beside their reconstructions during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from difflab.callbacks.clock import train_step
from difflab.callbacks.config import ReconstructionGridConfig
from difflab.callbacks.generation import draw_on_all_ranks, ready_to_sample
from difflab.callbacks.pictures import Pictures
from difflab.config.data import DataConfig
from difflab.data.build import build_dataset
from difflab.data.reading import ShardDataset
from difflab.images import to_float, to_uint8
from difflab.tracking.clock import ClockedLogger
from difflab.tracking.grid import make_grid, missing_tile

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext


class Reconstructs(Protocol):
    """A module that has images go through a latent and back."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] -> the same shape, about in [-1, 1]."""
        ...


class ReconstructionGrid(Pictures):
    """Reconstructs images 0..n-1 of the validation split (of the training split without one) with the averaged weights
    if the run keeps them: `samples/step-000100.png` and the image `samples/reconstructions`.

    Each image stands to the left of its reconstruction; one that is not finite is a crossed-out tile.
    """

    def __init__(
        self,
        dirpath: Path | str,
        data: DataConfig,
        every_steps: int = 1000,
        n: int = 32,
        columns: int = 4,
        batch_size: int = 32,
        min_side: int = 64,
        at_end: bool = True,
    ) -> None:
        super().__init__(dirpath, every_steps, at_end=at_end)
        self.data, self.n, self.columns, self.batch_size, self.min_side = data, n, columns, batch_size, min_side
        self._images: ShardDataset | None = None

    @classmethod
    def from_config(cls, config: ReconstructionGridConfig, context: CallbackContext) -> ReconstructionGrid:
        return cls(context.run.samples, context.config.data, **config.model_dump())

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reconstructs, saves and logs a grid at this step."""
        # As the configuration of the run has made sure.
        step, module = train_step(pl_module), cast("Reconstructs", pl_module)
        n = min(self.n, len(self._dataset()))

        def pairs(indices: list[int], seed: int) -> Tensor:
            return side_by_side(self._originals(indices).to(pl_module.device), module)

        with ready_to_sample(trainer, pl_module, f"reconstructing {n} images for a grid"):
            images, _ = draw_on_all_ranks(trainer, pairs, n, 0, self.batch_size)
        if not trainer.is_global_zero:
            return
        grid = make_grid(images, self.columns, min_side=self.min_side)
        for logger in trainer.loggers:
            if isinstance(logger, ClockedLogger):
                logger.log_image("samples/reconstructions", grid)
        self.save(grid, step)

    def _dataset(self) -> ShardDataset:
        if self._images is None:
            self._images = build_dataset(self.data, split=self.data.val_split or self.data.train_split)
        return self._images

    def _originals(self, indices: Sequence[int]) -> Tensor:
        dataset = self._dataset()
        return torch.stack([dataset[index]["image"] for index in indices])


def side_by_side(originals: Tensor, module: Reconstructs) -> Tensor:
    """uint8 [B, C, H, W] -> uint8 [B, C, H, 2 W], originals on the left and their reconstructions on the right."""
    made = module.reconstruct(to_float(originals))
    finite = made.isfinite().flatten(1).all(dim=1)
    reconstructions = to_uint8(torch.nan_to_num(made, nan=0.0, posinf=0.0, neginf=0.0))
    reconstructions[~finite] = missing_tile(*made.shape[1:]).to(made.device)
    return torch.cat([originals, reconstructions], dim=3)
