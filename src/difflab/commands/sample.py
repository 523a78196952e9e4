"""`difflab sample`: pictures of a stored run, as PNGs, a grid and the ADM archive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.sample import SampleConfig

GRID_MIN_SIDE = 64
RECORD = "sample.json"


def main(argv: Sequence[str]) -> int:
    run_app("sample", SampleConfig, with_defaults_of_run(argv), sample)
    return 0


def sample(config: SampleConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Draw `n` samples and write them below `out`; prints where they lie."""
    import numpy as np
    import torch
    from rich.console import Console

    from difflab.commands.drawing import draw_name, home_of, prepare_drawing
    from difflab.files import replacing, write_text
    from difflab.tracking.grid import make_grid, to_pil

    drawing = prepare_drawing(config)
    out = Path(config.out or home_of(drawing.stored.path) / "samples" / draw_name(config))
    out.mkdir(parents=True, exist_ok=True)
    remove_earlier_drawing(out)
    drawn: list[torch.Tensor] = []
    labels: list[int] = []
    for indices, classes, images in drawing.batches():
        drawn.append(images.cpu())
        labels.extend(classes or [])
        if config.png:
            for index, image in zip(indices, drawn[-1], strict=True):
                to_pil(image).save(out / f"{index:06d}.png")
    everything = torch.cat(drawn)
    if config.npz:
        arrays = {"arr_0": everything.permute(0, 2, 3, 1).numpy()}
        if labels:
            arrays["arr_1"] = np.asarray(labels, dtype=np.int64)
        with replacing(out / "samples.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    if config.grid:
        make_grid(everything, min_side=GRID_MIN_SIDE).save(out / "grid.png")
    if config.trajectory:
        draw_trajectory(drawing, config.trajectory).save(out / "trajectory.png")
    write_text(out / RECORD, json.dumps(plain, indent=2) + "\n")
    Console(highlight=False, soft_wrap=True).print(f"{len(everything)} samples of {drawing.stored.path} in {out}")


def remove_earlier_drawing(out: Path) -> None:
    """Remove what an earlier drawing left in the same folder: it may have been larger, or drawn in another way."""
    if (out / RECORD).is_file():
        for pattern in ("[0-9]" * 6 + ".png", "grid.png", "trajectory.png", "samples.npz"):
            for path in out.glob(pattern):
                path.unlink()


def draw_trajectory(drawing: Any, moments: int) -> Any:
    """A picture: one row per sample (at most 8), the predicted x0 at `moments` steps from noise to image."""
    from difflab.diffusion.samplers.trajectory import Trajectory
    from difflab.images import to_uint8
    from difflab.tracking.grid import make_grid

    indices = drawing.indices[:8]
    steps = drawing.pipeline.process.num_timesteps
    recorder = Trajectory.evenly(min(moments, steps), steps)
    drawing.pipeline.draw(indices, drawing.config.seed, classes=drawing.classes_of(indices), hook=recorder)
    frames = to_uint8(recorder.x0, drawing.config.rounding).transpose(0, 1)
    return make_grid(frames.flatten(0, 1), columns=frames.shape[1], min_side=GRID_MIN_SIDE)
