"""Grids of the model's samples during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from difflab.callbacks.clock import train_step
from difflab.callbacks.config import SampleGridConfig
from difflab.callbacks.generation import Generate, draw_on_all_ranks, ready_to_sample, report_bad_samples
from difflab.callbacks.pictures import Pictures
from difflab.requests.base import Request
from difflab.requests.words import class_words, in_words
from difflab.tracking.class_maps import coloured
from difflab.tracking.clock import ClockedLogger
from difflab.tracking.grid import make_grid, to_pil
from difflab.types import Batch

if TYPE_CHECKING:
    from difflab.callbacks.context import CallbackContext


class SampleGrid(Pictures):
    """Draws samples 0..n-1 of `seed` with the averaged weights: `samples/step-000100.png` and the image `samples/grid`.

    The noise is the same every time, so the grids of one run show how the same samples change. The conditioning of each
    sample is written below it, its boxes are drawn over it, and its map of classes stands below it. With `table` also
    logs `samples/table` with the columns image, index, seed, class, and caption if captions are requested. A sample
    that is not finite is a crossed-out tile; their number is logged as `samples/nonfinite`, and reported.
    """

    def __init__(
        self,
        dirpath: Path | str,
        generate: Generate,
        every_steps: int = 1000,
        n: int = 64,
        columns: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        min_side: int = 64,
        table: bool = False,
        at_end: bool = True,
        request: Request | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(dirpath, every_steps, at_end=at_end)
        self.generate, self.request = generate, request
        self.n, self.columns, self.batch_size, self.seed = n, columns, batch_size, seed
        self.min_side, self.table, self.class_names = min_side, table, class_names

    @classmethod
    def from_config(cls, config: SampleGridConfig, context: CallbackContext) -> SampleGrid:
        assert context.generate is not None, "the task draws samples"
        names = context.config.data.class_names
        return cls(
            context.run.samples, context.generate, request=context.request, class_names=names, **config.model_dump()
        )

    @override
    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws, saves and logs a grid at this step."""
        step = train_step(pl_module)
        with ready_to_sample(trainer, pl_module, f"sampling {self.n} images for a grid"):
            images, bad_steps = draw_on_all_ranks(trainer, self.generate, self.n, self.seed, self.batch_size)
        if not trainer.is_global_zero:
            return
        batch = {} if self.request is None else self.request(range(self.n), self.seed)
        labels, boxes = in_words(batch, self.class_names), batch.get("boxes")
        maps = batch.get("segmentation")
        below = None if maps is None else coloured(maps, *images.shape[-2:])
        grid = make_grid(images, self.columns, min_side=self.min_side, labels=labels, boxes=boxes, below=below)
        if bool(bad_steps.any()):
            (rows,) = bad_steps.nonzero(as_tuple=True)
            report_bad_samples(torch.stack([rows, bad_steps[rows]], dim=1), self.n, step, "sample grid")
            for logger in trainer.loggers:
                logger.log_metrics({"samples/nonfinite": len(rows)}, step=step)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, ClockedLogger)]
        for logger in loggers:
            logger.log_image("samples/grid", grid)
            if self.table:
                logger.log_table("samples/table", *self._table(images, batch))
        self.save(grid, step)

    def _table(self, images: Tensor, batch: Batch) -> tuple[list[str], list[list[Any]]]:
        """The columns and the rows of the table of these samples."""
        requested: dict[str, Sequence[Any]] = {"class": class_words(batch, self.class_names) or [None] * self.n}
        if "caption" in batch:
            requested["caption"] = batch["caption"]
        rows = [
            [to_pil(image), i, self.seed, *(values[i] for values in requested.values())]
            for i, image in enumerate(images)
        ]
        return ["image", "index", "seed", *requested], rows
