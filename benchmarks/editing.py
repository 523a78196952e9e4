"""What is left of an image under SDEdit, and how well what is drawn into a hole fits: a table over several trainings.

    python -m benchmarks.editing runs/cfg/shapes32/seed0 runs/cfg/shapes32/seed1 runs/cfg/shapes32/seed2

Images are those of the validation split, each with its class; the hole is the left half. Numbers are means over the
runs, with the deviation where there are several. All of them are judged by the oracle of the shapes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import difflab
from difflab.api import Run
from difflab.config.stored import read_train_config
from difflab.requests.data_split import DataSplit

STARTS = (0.2, 0.4, 0.6, 0.8, 1.0)
HOLES: dict[str, tuple[str, ...]] = {
    "x_t": (),
    "x_t, r = 5": ("inpaint.resamplings=5", "inpaint.jump_length=5"),
    "x_t, r = 10": ("inpaint.resamplings=10", "inpaint.jump_length=10"),
    "x0": ("inpaint.replaced=x0",),
}
"""How the network learns of what stays -> overrides."""


@dataclass(frozen=True)
class Given:
    """Real images uint8 [n, H, W, C] with their classes, as files."""

    pixels: np.ndarray
    labels: list[int]
    archive: Path
    masks: Path
    folder: Path


def given(run: Path, data: str | None, n: int, folder: Path) -> Given:
    """The first n images of the validation split, and a mask that is white on the left half."""
    config = read_train_config(run / "config.yaml").data
    config = config if data is None else config.model_copy(update={"path": data})
    assert config.val_split is not None, "the run has a validation split"
    batch = DataSplit(config, config.val_split, ["image", "label"])(range(n), 0)
    pixels, labels = batch["image"].permute(0, 2, 3, 1).numpy(), batch["label"].tolist()
    archive, masks = folder / "images.npz", folder / "masks"
    np.savez(archive, arr_0=pixels, arr_1=np.array(labels))
    masks.mkdir()
    hole = np.zeros(pixels.shape[1:3], dtype=np.uint8)
    hole[:, : hole.shape[1] // 2] = 255
    Image.fromarray(hole).save(masks / "left.png")
    return Given(pixels, labels, archive, masks, folder)


def measured(run: Run, real: Given, data: Sequence[str], how: Sequence[str], **options: Any) -> dict[str, float]:
    """Of one setting: the distance to the image inside and outside of the hole, and what the oracle says."""
    drawn = run.sample(n=len(real.labels), images=real.archive, overrides=[*how], **options)
    pixels = drawn.tensor.permute(0, 2, 3, 1).numpy()
    apart = np.abs(pixels.astype(int) - real.pixels)
    half = pixels.shape[2] // 2
    archive = real.folder / "drawn.npz"
    np.savez(archive, arr_0=pixels, arr_1=np.array(real.labels))
    judge = ["metrics.fd=null", "metrics.kid=null", *data]
    rows = difflab.evaluate(archive, metrics="shapes", accelerator="cpu", overrides=judge)
    found = {row.metric: row.value for row in rows}
    return {
        "distance": float(apart.mean()),
        "left": float(apart[:, :, :half].mean()),
        "right": float(apart[:, :, half:].mean()),
        "well formed %": 100 * found["oracle-well-formed-rate"],
        "class %": 100 * found["oracle-class-accuracy"],
    }


def shown(numbers: Sequence[float]) -> str:
    """`93.0`, or `93.0 ± 0.5` of several."""
    mean = statistics.fmean(numbers)
    return f"{mean:.1f}" if len(numbers) == 1 else f"{mean:.1f} ± {statistics.stdev(numbers):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", help="where the data lies now [default: where the runs were trained on it]")
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=1.5)
    args = parser.parse_args()
    how = ("sampler=ddim", "sampler.eta=1", "batch_size=64")
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        real = given(args.runs[0], args.data, args.n, Path(folder))
        _, width, channels = real.pixels.shape[1:]
        path = args.data or read_train_config(args.runs[0] / "config.yaml").data.path
        data = ("data=shapes32_single", f"data.path={path}", f"data.image_size={width}", f"data.channels={channels}")
        for path in args.runs:
            run = difflab.load(path, accelerator="cpu")
            common: dict[str, Any] = {"steps": args.steps, "guidance": args.guidance, "classes": real.labels}
            settings = {f"start {start:g}": (how, {"start": start}) for start in STARTS}
            settings |= {f"hole, {name}": ((*how, *more), {"mask": real.masks}) for name, more in HOLES.items()}
            for name, (overrides, own) in settings.items():
                found = measured(run, real, data, overrides, **own, **common)
                rows.setdefault(name, []).append(found)
                print(path.name, name, {key: round(value, 2) for key, value in found.items()}, flush=True)
    columns = list(next(iter(rows.values()))[0])
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(shown([one[column] for one in found]) for column in columns)} |")


if __name__ == "__main__":
    main()
