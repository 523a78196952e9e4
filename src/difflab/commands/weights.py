"""Weights: inspection, import and export of official formats, and EMA lengths chosen after training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from difflab.commands.next_command import next_command
from difflab.commands.typer_app import run_typer
from difflab.commands.weights_ema import ema
from difflab.config.guidance import Weights
from difflab.console import say
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.config.model import ModelConfig
    from difflab.interop.identifying import Component

_WRAPPER = "the key of the weights in a file that has several, as in ema or state_dict.ema_model"

_LAYOUTS = (
    "difflab, diffusers, glide, guided, guided-new-order, janspiry, pesser; of a CLIP openai_clip (also open_clip's), "
    "open_clip_custom or transformers_clip; of an autoencoder or a latent diffusion model diffusers or compvis"
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(readable=False, help="a weights file, a folder of weights or a run")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    wrapper: Annotated[str | None, typer.Option(help=_WRAPPER)] = None,
) -> None:
    """Identify weights by their keys and shapes; nothing in the file is executed."""
    from difflab.interop.identifying import identify
    from difflab.interop.latent.inspecting import identify_pipeline
    from difflab.interop.latent.pipeline_parts import is_pipeline
    from difflab.pipelines.stored import weights_of_run

    whole = wrapper is None and is_pipeline(path)
    found = identify_pipeline(path) if whole else identify(weights_of_run(path) or path, wrapper)
    if as_json:
        say(json.dumps(asdict(found), default=str, indent=1))
        return
    rows = {
        "file": found.path,
        "format": found.format,
        "layout": found.layout or "unknown",
        "is": ", ".join(found.facts) or "not identified by its keys and shapes",
        "fits": ", ".join(found.presets) or "none of the published models known here",
        "tensors": f"{found.tensors} with {found.parameters:,} parameters, {', '.join(found.dtypes)}",
    }
    for name, value in rows.items():
        say(f"{name:<8} {value}")
    for line in _of_parts(found.parts):
        say(line)
    for note in found.notes:
        say(f"{'note':<8} {note}")


def _of_parts(parts: Sequence[Component]) -> list[str]:
    """A line for each part of a pipeline folder, in columns, below their names; none where there are no parts."""
    if not parts:
        return []
    rows = [("part", "class", "parameters", "dtype", "files", "becomes")]
    for part in parts:
        number = f"{part.parameters:,}" if part.dtypes else ""
        rows.append((part.name, part.kind, number, ", ".join(part.dtypes), ", ".join(part.files), part.becomes))
    name, kind, number, dtype, files, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]:>{number}}  {row[3]:<{dtype}}  {row[4]:<{files}}  {row[5]}"
        for row in rows
    ]


@app.command(name="import")
def import_(
    path: Annotated[Path, typer.Argument(readable=False, help="an official weights file, or a folder of them")],
    out: Annotated[Path, typer.Option(readable=False, help="folder to write, for `difflab sample run=`")],
    preset: Annotated[
        str | None,
        typer.Option(help="their experiment, as in ddpm/cifar10; a folder may contain it"),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="the official layout, if the keys do not determine it")] = None,
    wrapper: Annotated[str | None, typer.Option(help=_WRAPPER)] = None,
    activation: Annotated[
        str | None, typer.Option(help="of a CLIP that nothing else says it of: quick_gelu or gelu")
    ] = None,
    which: Annotated[
        str, typer.Option("--weights", help="of a checkpoint that has both: auto (averages), ema or raw")
    ] = "auto",
    categories: Annotated[
        Path | None,
        typer.Option(readable=False, help="of a checkpoint with boxes: a text file of their phrases, one per line"),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(help="a LoRA to merge into a Stable Diffusion, FILE or FILE:SCALE; may be repeated"),
    ] = None,
) -> None:
    """Convert official weights into a folder (config.json, model.safetensors) that every command accepts."""
    from difflab.commands.weights_latent import latent_model, refuse_options_of_latents
    from difflab.interop.finite import nonfinite_notes
    from difflab.interop.latent.exported import save_latent
    from difflab.interop.latent.lora import merged, parsed
    from difflab.interop.layout import Target
    from difflab.interop.layouts import NATIVE
    from difflab.interop.presets import PRESETS
    from difflab.interop.registry import check_export, export_model, import_weights

    if (path / "config.yaml").is_file():
        raise UserError(f"{path} is a run of difflab's own, which every command accepts as it is: run={path}")
    given = {"layout": layout, "wrapper": wrapper, "activation": activation}
    whole = latent_model(path, preset, which, categories, given)
    if whole is not None:
        for argument in lora or ():
            whole = merged(whole, *parsed(argument))
        save_latent(out, whole)
        say(f"{path} -> {out}: try `{next_command(whole.config, out)}`")
        for note in (*whole.notes, *nonfinite_notes(whole.tensors())):
            say(f"note: {note}")
        return
    refuse_options_of_latents(path, which, categories, lora or ())
    config, notes = _named_model(path, preset, layout, wrapper, activation)
    _require_activation(path if preset is None else preset, config, activation)
    check_export(out, config, NATIVE)
    published_in = PRESETS[preset].layouts if preset in PRESETS else ()
    imported = import_weights(path, Target.of(config), layout, wrapper, published_in)
    export_model(out, imported.state, config, NATIVE)
    say(f"{path} ({imported.layout}) -> {out}: try `{next_command(config, out)}`")
    if preset is not None:
        _warn_of_the_name(path, preset)
        if layout is not None and published_in and layout not in published_in:
            say(f"note: {preset} was published in layout {' or '.join(published_in)}, not {layout}")
    for note in (*notes, *imported.notes, *nonfinite_notes(imported.state)):
        say(f"note: {note}")


def _named_model(
    path: Path, preset: str | None, layout: str | None, wrapper: str | None, activation: str | None
) -> tuple[ModelConfig, Sequence[str]]:
    """The model of the weights, and notes about how it was identified."""
    from difflab.commands.weights_latent import model_of_experiment
    from difflab.interop.autoencoder_folder import autoencoder_of_folder
    from difflab.interop.clip_folder import clip_of_folder
    from difflab.interop.diffusers_model import model_of_folder
    from difflab.interop.registry import model_of_weights

    if preset is not None:
        config = model_of_experiment(preset)
        _refuse_unlearned_tokens(preset, config)
        return config, _other_process(path, config, preset)
    described = model_of_folder(path) or autoencoder_of_folder(path) or clip_of_folder(path)
    described = described or model_of_weights(path, layout, wrapper, activation)
    return described.config, described.notes


def _refuse_unlearned_tokens(preset: str, config: ModelConfig) -> None:
    if config.learns:
        raise UserError(
            f"--preset {preset}: its runs find their tokenizers, text encoders or first stages when they start, which "
            "weights do not have; export the run as a folder, in layout difflab or another, which has them"
        )


def _require_activation(source: object, config: ModelConfig, activation: str | None) -> None:
    """Raises UserError where --activation contradicts what the weights are taken for."""
    from difflab.interop.layout import Target

    if activation is None:
        return
    known = Target.of(config).architecture().get("activation")
    if known is None:
        raise UserError(f"--activation {activation}: only a CLIP has one; leave it out")
    if known != activation:
        raise UserError(f"--activation {activation}, but {source} has {known}: leave it out")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="a run directory, a checkpoint or an exported folder")],
    out: Annotated[Path, typer.Option(readable=False, help="folder to write (a file for the layouts of one file)")],
    layout: Annotated[str, typer.Option(help=_LAYOUTS)] = "difflab",
    which: Annotated[str, typer.Option("--weights", help="auto (averages where they are kept), ema or raw")] = "auto",
) -> None:
    """Write the weights of a run as a difflab folder, or in an official layout."""
    from difflab.interop.latent.whole import check_whole, leaves_whole, save_whole
    from difflab.interop.registry import NATIVE, check_export, export_model
    from difflab.pipelines.stored import find_stored, load_weights, load_whole_weights

    stored = find_stored(run, _which(which))
    if leaves_whole(stored.config, layout):
        notes = check_whole(out, stored.config, layout)
        notes = save_whole(out, stored.config, load_weights(stored), layout)
        say(f"{run} -> {out}")
        for note in notes:
            say(f"note: {note}")
        return
    notes = check_export(out, stored.config, layout)
    load = load_weights if layout == NATIVE else load_whole_weights
    written = export_model(out, load(stored), stored.config, layout)
    say(f"{run} -> {', '.join(map(str, written))}")
    for note in notes:
        say(f"note: {note}")


app.command()(ema)


def _other_process(path: Path, config: ModelConfig, preset: str) -> list[str]:
    """Notes on a folder whose own noise schedule differs from the experiment's."""
    from difflab.config.model import NoisedModelConfig
    from difflab.interop.diffusers_model import model_of_folder

    try:
        described = model_of_folder(path)
    except UserError:
        # A preset also serves folders that do not state the process, or state an unknown one.
        return []
    if described is None or not isinstance(config, NoisedModelConfig):
        return []
    theirs, ours = described.config.diffusion.model_dump(), config.diffusion.model_dump()
    return [
        f"{path} has {key}={theirs[key]}, but it was taken for {preset}, which has {ours.get(key)}"
        for key in ("schedule", "timesteps", "prediction", "variance")
        if theirs[key] != ours.get(key)
    ]


def _which(name: str) -> Weights:
    if name not in get_args(Weights):
        raise UserError(f"--weights {name} is not one of {', '.join(get_args(Weights))}")
    return cast(Weights, name)


def _warn_of_the_name(path: Path, preset: str) -> None:
    """Models of one architecture can only be distinguished by their file names."""
    from difflab.interop.identifying import published_as
    from difflab.interop.presets import PRESETS

    named = published_as(path, PRESETS)
    if named is not None and named != preset:
        say(f"note: {path.name} is the name of {named}'s file, but it was taken for {preset}")


def main(argv: Sequence[str]) -> int:
    return run_typer(app, "weights", argv)
