"""Generates samples of a stored run into a folder, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.commands.command import Kept, Machine, same
from difflab.commands.drawing import Drawing, draw_name, prepare_drawing
from difflab.commands.limits import require_disk
from difflab.commands.processes import Processes
from difflab.commands.sample_archive import GRID_MIN_SIDE, GRID_MOST, SampleArchive
from difflab.commands.sample_folder import SampleFolder
from difflab.config.sample import Preview, SampleConfig
from difflab.console import say
from difflab.diffusion.samplers.trajectory import Trajectory
from difflab.errors import UserError
from difflab.images import to_uint8
from difflab.requests.drawings import ARCHIVE, GRID, TRAJECTORY
from difflab.tracking.grid import make_grid, save_picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from difflab.tracking.job import Job

ROWS_OF_TRAJECTORY = 8
SMALLEST_PNG = 512
"""The least number of bytes of an image, on a file system that packs small files."""

WRITTEN_BESIDE = ("out", "npz", "png", "grid", "columns", "trajectory", "preview", "accelerator", "devices")
"""Keys that do not change the samples, or are recorded in another way."""


@dataclass(frozen=True)
class Sampling:
    """The work of `difflab sample` (see `difflab.commands.command.Work`)."""

    drawing: Drawing
    config: SampleConfig
    plain: dict[str, Any]

    @property
    def processes(self) -> Processes:
        return self.drawing.processes

    @property
    def kept(self) -> Kept:
        return Kept(self.drawing.stored.home / "samples", draw_name(self.config), self.drawing.files)

    def do(self, place: Path, job: Callable[[Job], Job] = same) -> None:
        """Generates `n` samples and writes them.

        If an earlier run of just these was interrupted, its batches are read back and only the others are generated. An
        interruption keeps the finished images, and reports how many.
        """
        out = SampleFolder(place, self.drawing.stored.config.channels)
        with self.processes.agreeing():
            refuse_too_many(self.drawing, self.config, out.path)
        with self.processes.taking(out.path, "is being drawn into"):
            self._draw(out)

    def _draw(self, out: SampleFolder) -> None:
        drawing, config, processes = self.drawing, self.config, self.processes
        together = SampleArchive(out.path, drawing)
        if processes.is_main:
            out.begin(made_of(self.plain, drawing), config.n, png=config.png)
            together.begin()
        processes.wait()
        try:
            with processes.agreeing():
                for requested, images in drawing.batches(out.kept if config.png else None):
                    drawn = images.cpu()
                    together.add(requested, drawn)
                    if config.png:
                        out.write(requested["index"].tolist(), drawn, requested.get("caption"))
            processes.wait()
            if processes.is_main:
                together.finish()
                if config.trajectory:
                    save_trajectory(drawing, config.trajectory, out.path, config.preview)
                out.finish(recorded(self.plain, drawing))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                error.add_note(out.left_behind(config.n, png=config.png))
            if processes.is_main:
                out.leave()
            raise
        finally:
            if processes.is_main:
                together.remove()

    def is_kept(self, place: Path) -> bool:
        config = self.config
        files = {GRID: config.grid, TRAJECTORY: config.trajectory > 0, ARCHIVE: config.npz}
        together = [name for name, requested in files.items() if requested]
        folder = SampleFolder(place, self.drawing.stored.config.channels)
        return folder.is_whole(config.n if config.png else 0, together)

    def show(self, place: Path) -> None:
        say(f"{self.config.n} samples of {self.drawing.stored.path} in {place}")


def sampling(config: SampleConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Sampling:
    """The work of generating `n` samples. Raises UserError for invalid requests."""
    with machine.processes.agreeing():
        drawing = prepare_drawing(config, machine.processes, machine.models)
        if config.preview == "linear" and not drawing.pipeline.last.decodes:
            raise UserError("preview=linear is for models of latents, and this one draws images: leave it out")
        return Sampling(drawing, config, plain)


def recorded(plain: dict[str, Any], drawing: Drawing) -> dict[str, Any]:
    """The record of a sampling run: its configuration, whether a network was `compiled`, its class names, if any, and
    under `shows` the requests of the first samples in words."""
    wanted, words = drawing.pipeline.wanted, drawing.words(min(drawing.n, GRID_MOST))
    named = {"class_names": list(wanted.class_names)} if wanted.classes is not None and wanted.class_names else {}
    shows = {} if words is None else {"shows": words}
    # How known pixels enter sampling follows from the model where it is left open.
    pipeline = drawing.pipeline.record().get("pipeline", {})
    used = {key: value for key, value in pipeline.items() if key == "inpaint"}
    return {**plain, **used, "compiled": drawing.compilation.used, **named, **shows}


def made_of(plain: dict[str, Any], drawing: Drawing) -> dict[str, Any]:
    """Everything that determines the bits of the samples: the configuration, the files, and the number of processes."""
    config = {key: value for key, value in plain.items() if key not in WRITTEN_BESIDE}
    files = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in drawing.files}
    return {"config": config, "files": files, "processes": drawing.processes.world_size}


def refuse_too_many(drawing: Drawing, config: SampleConfig, out: Path) -> None:
    """Raises UserError for more samples than the disk can hold."""
    pixels = math.prod(drawing.shape)
    if config.png:
        require_disk(f"n={config.n}: pictures", config.n * SMALLEST_PNG, out, "lower n, or give another out=...")
    if config.npz:
        # Until the archive is complete, its samples also exist beside it.
        require_disk(f"n={config.n}: samples.npz", 2 * config.n * pixels, out, "lower n, or set npz=false")


def save_trajectory(drawing: Drawing, moments: int, out: Path, preview: Preview) -> None:
    """Writes the image of `draw_trajectory`."""
    save_picture(draw_trajectory(drawing, moments, preview), out / TRAJECTORY)


def draw_trajectory(drawing: Drawing, moments: int, preview: Preview = "decoder") -> Image:
    """An image with one row per sample (at most 8): the predicted x0 at `moments` steps from noise to image."""
    config = drawing.config
    indices = range(min(config.n, ROWS_OF_TRAJECTORY))
    recorder = Trajectory.evenly(moments, drawing.pipeline.n_steps)
    drawing.pipeline.draw(indices, config.seed, hook=recorder)
    import torch

    images_of = drawing.pipeline.images_of
    if preview == "linear":
        from difflab.networks.first_stage.preview import LinearPreview

        last = recorder.x0[-1]
        images_of = LinearPreview.fitted(last, images_of(last).to(last))
    images = torch.stack([images_of(x0).cpu() for x0 in recorder.x0])
    frames = to_uint8(images, config.rounding).transpose(0, 1)
    return make_grid(frames.flatten(0, 1), columns=frames.shape[1], min_side=GRID_MIN_SIDE)
