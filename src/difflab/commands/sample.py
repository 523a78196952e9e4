"""`difflab sample`: pictures of a stored run, as PNGs, a grid and the ADM archive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.sample import SampleConfig
from difflab.console import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from difflab.commands.drawing import Drawing

ROWS_OF_TRAJECTORY = 8
SMALLEST_PNG = 512
"""Bytes that a picture takes at least, on a file system that packs small files."""

WRITTEN_BESIDE = ("out", "npz", "png", "grid", "columns", "trajectory", "accelerator", "devices")
"""Keys that leave the pictures as they are, or are recorded in another way."""


def main(argv: Sequence[str]) -> int:
    run_app("sample", SampleConfig, with_defaults_of_run(argv), sample)
    return 0


def sample(config: SampleConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Draw `n` samples and write them below `out`; prints where they lie.

    Where an earlier drawing of just these was stopped, its batches are read back and the others drawn. An interruption
    keeps the pictures that are drawn, and says how many.
    """
    from difflab.commands.drawing import draw_name, drawing_of
    from difflab.commands.limits import require_folder
    from difflab.commands.sample_archive import SampleArchive
    from difflab.commands.sample_folder import SampleFolder

    require_folder("out", config.out)
    with drawing_of(config) as drawing:
        processes = drawing.processes
        folder = Path(config.out or drawing.stored.home / "samples" / draw_name(config))
        out = SampleFolder(folder, drawing.stored.config.channels)
        with processes.agreeing():
            refuse_too_many(drawing, out.path)
        processes.take(out.path, "is being drawn into")
        together = SampleArchive(out.path, drawing)
        if processes.is_main:
            out.begin(made_of(plain, drawing), config.n, png=config.png)
            together.begin()
        processes.wait()
        try:
            with processes.agreeing():
                for asked, images in drawing.batches(out.kept if config.png else None):
                    drawn = images.cpu()
                    together.add(asked, drawn)
                    if config.png:
                        out.write(asked["index"].tolist(), drawn)
            processes.wait()
            if processes.is_main:
                together.finish()
                if config.trajectory:
                    save_trajectory(drawing, config.trajectory, out.path)
                out.finish(recorded(plain, drawing))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                error.add_note(out.left_behind(config.n, png=config.png))
            if processes.is_main:
                out.leave()
            raise
        finally:
            if processes.is_main:
                together.remove()
        if processes.is_main:
            say(f"{config.n} samples of {drawing.stored.path} in {out.path}")


def recorded(plain: dict[str, Any], drawing: Drawing) -> dict[str, Any]:
    """What is written down of a drawing: its configuration, and what its classes are called, where it has any."""
    wanted = drawing.pipeline.wanted
    named = wanted.classes is not None and wanted.class_names is not None
    return {**plain, "class_names": list(wanted.class_names or [])} if named else plain


def made_of(plain: dict[str, Any], drawing: Drawing) -> dict[str, Any]:
    """All that decides the bits of every picture: the configuration, the files, and how many processes share them."""
    config = {key: value for key, value in plain.items() if key not in WRITTEN_BESIDE}
    files = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in drawing.files}
    return {"config": config, "files": files, "processes": drawing.processes.world_size}


def refuse_too_many(drawing: Drawing, out: Path) -> None:
    """Raises UserError for more samples than the disk can keep."""
    from difflab.commands.limits import require_disk

    config = drawing.config
    assert isinstance(config, SampleConfig)
    pixels = math.prod(drawing.stored.config.shape)
    if config.png:
        require_disk(f"n={config.n}: pictures", config.n * SMALLEST_PNG, out, "lower n, or give another out=...")
    if config.npz:
        # Until the archive is whole its samples lie beside it, too.
        require_disk(f"n={config.n}: samples.npz", 2 * config.n * pixels, out, "lower n, or set npz=false")


def save_trajectory(drawing: Drawing, moments: int, out: Path) -> None:
    """Write the picture of `draw_trajectory`."""
    from difflab.tracking.grid import save_picture

    save_picture(draw_trajectory(drawing, moments), out / "trajectory.png")


def draw_trajectory(drawing: Drawing, moments: int) -> Image:
    """A picture: one row per sample (at most 8), the predicted x0 at `moments` steps from noise to image."""
    from difflab.commands.sample_archive import GRID_MIN_SIDE
    from difflab.diffusion.samplers.trajectory import Trajectory
    from difflab.images import to_uint8
    from difflab.tracking.grid import make_grid

    config = drawing.config
    indices = range(min(config.n, ROWS_OF_TRAJECTORY))
    recorder = Trajectory.evenly(moments, drawing.pipeline.n_steps)
    drawing.pipeline.draw(indices, config.seed, hook=recorder)
    frames = to_uint8(recorder.x0, config.rounding).transpose(0, 1)
    return make_grid(frames.flatten(0, 1), columns=frames.shape[1], min_side=GRID_MIN_SIDE)
