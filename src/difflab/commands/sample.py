"""`difflab sample`: pictures of a stored run, as PNGs, a grid and the ADM archive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.sample import SampleConfig

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from difflab.commands.drawing import Drawing

GRID_MIN_SIDE = 64
ROWS_OF_TRAJECTORY = 8
SMALLEST_PNG = 512
"""Bytes that a picture takes at least, on a file system that packs small files."""

WRITTEN_BESIDE = ("out", "npz", "png", "grid", "trajectory", "accelerator", "devices")
"""Keys that leave the pictures as they are, or are recorded in another way."""


def main(argv: Sequence[str]) -> int:
    run_app("sample", SampleConfig, with_defaults_of_run(argv), sample)
    return 0


def sample(config: SampleConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Draw `n` samples and write them below `out`; prints where they lie.

    Where an earlier drawing of just these was stopped, its batches are read back and the others drawn. An interruption
    keeps the pictures that are drawn, and says how many.
    """
    import torch

    from difflab.commands.drawing import draw_name, drawing_of
    from difflab.commands.limits import require_folder
    from difflab.commands.sample_folder import SampleFolder
    from difflab.console import say
    from difflab.metrics.samples import SampleImages

    require_folder("out", config.out)
    with drawing_of(config) as drawing:
        processes = drawing.processes
        folder = Path(config.out or drawing.stored.home / "samples" / draw_name(config))
        out = SampleFolder(folder, drawing.stored.config.channels)
        with processes.agreeing():
            refuse_too_many(drawing, out.path)
        processes.take(out.path, "is being drawn into")
        if processes.is_main:
            out.begin(made_of(plain, drawing), config.n, png=config.png)
        processes.wait()
        drawn = SampleImages()
        try:
            with processes.agreeing():
                for indices, _, images in drawing.batches(out.kept if config.png else None):
                    if config.npz or config.grid:
                        drawn.update(images, torch.tensor(indices))
                    if config.png:
                        out.write(indices, images.cpu())
            everything = drawn.gathered(config.n) if config.npz or config.grid else None
            processes.wait()
            if processes.is_main:
                write_together(out.path, drawing, everything)
                out.finish(plain)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                error.add_note(out.left_behind(config.n, png=config.png))
            if processes.is_main:
                out.leave()
            raise
        if processes.is_main:
            say(f"{config.n} samples of {drawing.stored.path} in {out.path}")


def made_of(plain: dict[str, Any], drawing: Drawing) -> dict[str, Any]:
    """All that decides the bits of every picture: the configuration, the files, and how many processes share them."""
    config = {key: value for key, value in plain.items() if key not in WRITTEN_BESIDE}
    files = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in drawing.files}
    return {"config": config, "files": files, "processes": drawing.processes.world_size}


def refuse_too_many(drawing: Drawing, out: Path) -> None:
    """Raises UserError for more samples than the machine can keep."""
    from difflab.commands.limits import main_memory, require_disk, require_memory

    config = drawing.config
    assert isinstance(config, SampleConfig)
    pixels = math.prod(drawing.stored.config.shape)
    if config.npz or config.grid:
        # While they are put together they are there twice.
        what = f"n={config.n}: samples for the archive and the grid"
        fix = "lower n, or set npz=false and grid=false"
        require_memory(what, 2 * config.n * pixels, main_memory(), fix)
    if config.png:
        require_disk(f"n={config.n}: pictures", config.n * SMALLEST_PNG, out, "lower n, or give another out=...")
    if config.npz:
        require_disk(f"n={config.n}: samples.npz", config.n * pixels, out, "lower n, or set npz=false")


def write_together(out: Path, drawing: Drawing, images: Tensor | None) -> None:
    """The files that hold many samples: the archive, the grid, the trajectory.

    images: uint8 [n, C, H, W], all samples in order; None where neither archive nor grid is asked for.
    """
    import numpy as np

    from difflab.files import replacing
    from difflab.tracking.grid import make_grid, save_picture

    config = drawing.config
    assert isinstance(config, SampleConfig)
    if images is not None and config.npz:
        arrays = {"arr_0": images.permute(0, 2, 3, 1).numpy()}
        labels = drawing.classes_of(range(config.n))
        if labels is not None:
            arrays["arr_1"] = np.asarray(labels, dtype=np.int64)
        with replacing(out / "samples.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    if images is not None and config.grid:
        save_picture(make_grid(images, min_side=GRID_MIN_SIDE), out / "grid.png")
    if config.trajectory:
        save_picture(draw_trajectory(drawing, config.trajectory), out / "trajectory.png")


def draw_trajectory(drawing: Drawing, moments: int) -> Image:
    """A picture: one row per sample (at most 8), the predicted x0 at `moments` steps from noise to image."""
    from difflab.diffusion.samplers.trajectory import Trajectory
    from difflab.images import to_uint8
    from difflab.tracking.grid import make_grid

    config = drawing.config
    indices = range(min(config.n, ROWS_OF_TRAJECTORY))
    recorder = Trajectory.evenly(moments, drawing.pipeline.n_steps)
    drawing.pipeline.draw(indices, config.seed, classes=drawing.classes_of(indices), hook=recorder)
    frames = to_uint8(recorder.x0, config.rounding).transpose(0, 1)
    return make_grid(frames.flatten(0, 1), columns=frames.shape[1], min_side=GRID_MIN_SIDE)
