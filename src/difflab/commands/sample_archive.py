"""The files that hold many samples, written as they arrive: the ADM archive and the grid."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from difflab.commands.drawing import Drawing
from difflab.config.sample import SampleConfig
from difflab.console import say_on_stderr
from difflab.files import replacing
from difflab.requests.drawings import ARCHIVE, GRID
from difflab.tracking.class_maps import coloured
from difflab.tracking.grid import make_grid, save_picture
from difflab.tracking.row_file import RowFile
from difflab.types import Batch

GRID_MIN_SIDE = 64
"""The least number of pixels of the shorter side of an image in a grid; smaller ones are scaled by an integer."""

GRID_MOST = 256
"""The largest number of images in a grid."""


class SampleArchive:
    """Collects the samples of all processes into `samples.npz` and `grid.png`; no process holds more than a batch."""

    def __init__(self, folder: Path, drawing: Drawing) -> None:
        config = drawing.config
        assert isinstance(config, SampleConfig)
        self.folder, self.drawing, self.config = folder, drawing, config
        channels, height, width = drawing.shape
        kept = config.n if config.npz else min(config.n, GRID_MOST) if config.grid else 0
        self._images = RowFile(folder / ".samples-images.rows", kept, (height, width, channels), np.dtype(np.uint8))
        labelled = config.npz and "label" in drawing.pipeline.request.fields
        self._labels = RowFile(folder / ".samples-labels.rows", config.n if labelled else 0, (), np.dtype(np.int64))

    def begin(self) -> None:
        """Allocates the files; called by one process."""
        for file in (self._images, self._labels):
            if file.n:
                file.create()

    def add(self, requested: Batch, images: Tensor) -> None:
        """Adds a batch of this process. images: uint8 [b, C, H, W] on the CPU."""
        indices = requested["index"].tolist()
        if self._images.n:
            self._images.write(indices, images.permute(0, 2, 3, 1).numpy())
        if self._labels.n:
            self._labels.write(indices, requested["label"].numpy())

    def finish(self) -> None:
        """Writes the files once all samples are added; called by one process."""
        if self.config.npz:
            with replacing(self.folder / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                self._images.copy_into(archive, "arr_0")
                if self._labels.n:
                    self._labels.copy_into(archive, "arr_1")
        if self.config.grid:
            self._write_grid()

    def remove(self) -> None:
        """Removes everything but the requested files."""
        for file in (self._images, self._labels):
            file.remove()

    def _write_grid(self) -> None:
        n = min(self.config.n, GRID_MOST)
        if n < self.config.n:
            say_on_stderr(f"note: {GRID} shows the first {n} of {self.config.n} samples")
        images = torch.from_numpy(self._images.read(0, n).copy()).permute(0, 3, 1, 2)
        labels, boxes, maps = self.drawing.words(n), self.drawing.boxes(n), self.drawing.maps(n)
        below = None if maps is None else coloured(maps, *images.shape[-2:])
        grid = make_grid(images, self.config.columns, min_side=GRID_MIN_SIDE, labels=labels, boxes=boxes, below=below)
        save_picture(grid, self.folder / GRID)
