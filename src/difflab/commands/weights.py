"""Weights in official formats: what a file is, in, and out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from difflab.commands.typer_app import run_typer
from difflab.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="a weights file, a diffusers folder, an exported folder or a run")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Say what weights are, from their keys and shapes; nothing in the file is executed."""
    from difflab.interop.registry import identify

    inside_run = path / "weights" / "ema.safetensors"
    found = identify(inside_run if inside_run.is_file() else path)
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), default=str, indent=1) + "\n")
        return
    rows = {
        "file": found.path,
        "format": found.format,
        "layout": found.layout or "none that is known",
        "fits": ", ".join(found.presets) or "none of the published networks known here",
        "tensors": f"{found.tensors} with {found.parameters:,} parameters, {', '.join(found.dtypes)}",
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:<8} {value}\n")
    for note in found.notes:
        sys.stdout.write(f"{'note':<8} {note}\n")


@app.command(name="import")
def import_(
    path: Annotated[Path, typer.Argument(help="an official weights file, or a diffusers folder")],
    preset: Annotated[str, typer.Option(help="the published experiment they are of, as in ddpm/cifar10")],
    out: Annotated[Path, typer.Option(help="folder to write, which `difflab sample run=` takes")],
    layout: Annotated[str | None, typer.Option(help="the official layout, where the keys do not tell")] = None,
) -> None:
    """Turn official weights into a folder (config.json, model.safetensors) that every command takes."""
    from difflab.commands.composing import choices_of, compose_and_validate
    from difflab.config.model import ModelConfig
    from difflab.config.train import TrainConfig
    from difflab.interop.layout import Target
    from difflab.interop.native import save_export
    from difflab.interop.registry import import_weights

    if preset not in choices_of("experiment"):
        raise UserError(f"--preset {preset} is not an experiment; there are {', '.join(choices_of('experiment'))}")
    experiment, _ = compose_and_validate("train", TrainConfig, [f"experiment={preset}"])
    config = ModelConfig.of(experiment)
    target = Target(config.network, config.image_size, config.diffusion.learns_variance)
    imported = import_weights(path, target, layout)
    save_export(out, {f"network.{key}": value for key, value in imported.state.items()}, config.model_dump(mode="json"))
    sys.stdout.write(f"{path} ({imported.layout}) -> {out}: try `difflab sample run={out} n=4`\n")
    for note in imported.notes:
        sys.stdout.write(f"note: {note}\n")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="a run directory, a checkpoint or an exported folder")],
    out: Annotated[Path, typer.Option(help="folder to write (a file for the layouts of one file)")],
    layout: Annotated[str, typer.Option(help="difflab, diffusers or pesser")] = "difflab",
    which: Annotated[str, typer.Option("--weights", help="ema or raw")] = "ema",
) -> None:
    """Write the weights of a run as difflab's folder, or in an official layout."""
    from difflab.interop.layout import Target
    from difflab.interop.native import save_export
    from difflab.interop.registry import NATIVE, export_weights
    from difflab.pipelines.stored import find_stored, load_weights

    chosen = _which(which)
    stored = find_stored(run, chosen)
    state = load_weights(stored, chosen)
    if layout == NATIVE:
        save_export(out, state, stored.config.model_dump(mode="json"))
        written = [out]
    else:
        network = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
        if len(network) < len(state):
            raise UserError(f"{run} has conditioners, which layout {layout} cannot hold; use --layout difflab")
        target = Target(stored.config.network, stored.config.image_size, stored.config.diffusion.learns_variance)
        written = export_weights(out, network, target, layout)
    sys.stdout.write(f"{run} -> {', '.join(map(str, written))}\n")


def _which(name: str) -> Literal["ema", "raw"]:
    if name == "ema":
        return "ema"
    if name == "raw":
        return "raw"
    raise UserError(f"--weights {name} is neither ema nor raw")


def main(argv: Sequence[str]) -> int:
    return run_typer(app, "weights", argv)
