"""`difflab sample`: pictures of a stored run, as PNGs, a grid and the ADM archive."""

from __future__ import annotations

import json
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
RECORD = "sample.json"


def main(argv: Sequence[str]) -> int:
    run_app("sample", SampleConfig, with_defaults_of_run(argv), sample)
    return 0


def sample(config: SampleConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Draw `n` samples and write them below `out`; prints where they lie."""
    import torch

    from difflab.commands.drawing import draw_name, drawing_of
    from difflab.metrics.samples import SampleImages
    from difflab.tracking.grid import to_pil

    with drawing_of(config) as drawing:
        processes = drawing.processes
        out = Path(config.out or drawing.stored.home / "samples" / draw_name(config))
        processes.take(out, "is being drawn into")
        if processes.is_main:
            out.mkdir(parents=True, exist_ok=True)
            remove_earlier_drawing(out)
        processes.wait()
        drawn = SampleImages()
        for indices, _, images in drawing.batches():
            if config.npz or config.grid:
                drawn.update(images, torch.tensor(indices))
            if config.png:
                for index, image in zip(indices, images.cpu(), strict=True):
                    to_pil(image).save(out / f"{index:06d}.png")
        everything = drawn.gathered(config.n) if config.npz or config.grid else None
        processes.wait()
        if processes.is_main:
            write_together(out, drawing, everything)
            finish(out, plain, f"{config.n} samples of {drawing.stored.path} in {out}")


def write_together(out: Path, drawing: Drawing, images: Tensor | None) -> None:
    """The files that hold many samples: the archive, the grid, the trajectory.

    images: uint8 [n, C, H, W], all samples in order; None where neither archive nor grid is asked for.
    """
    import numpy as np

    from difflab.files import replacing
    from difflab.tracking.grid import make_grid

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
        make_grid(images, min_side=GRID_MIN_SIDE).save(out / "grid.png")
    if config.trajectory:
        draw_trajectory(drawing, config.trajectory).save(out / "trajectory.png")


def finish(out: Path, plain: dict[str, Any], line: str) -> None:
    """Write down how the samples were made, and say where they lie."""
    from rich.console import Console

    from difflab.files import write_text

    write_text(out / RECORD, json.dumps(plain, indent=2) + "\n")
    Console(highlight=False, soft_wrap=True).print(line)


def remove_earlier_drawing(out: Path) -> None:
    """Remove what an earlier drawing left in the same folder: it may have been larger, or drawn in another way."""
    if (out / RECORD).is_file():
        for pattern in ("[0-9]" * 6 + ".png", "grid.png", "trajectory.png", "samples.npz"):
            for path in out.glob(pattern):
                path.unlink()


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
