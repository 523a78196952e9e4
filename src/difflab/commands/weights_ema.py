"""`difflab weights ema`: averages of any length, from the snapshots of a run with callbacks.power_ema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difflab.commands.next_command import next_command
from difflab.console import say
from difflab.errors import UserError, user_errors

if TYPE_CHECKING:
    from difflab.averaging.snapshots import Recipe, Snapshot


def ema(
    run: Annotated[Path, typer.Argument(readable=False, help="a run directory, trained with callbacks=power_ema")],
    sigma_rel: Annotated[str, typer.Option(help="the length, or several: 0.05,0.1,0.15 (EDM2: 0.01 to 0.25)")],
    out: Annotated[Path, typer.Option(readable=False, help="folder to write; several lengths each get a subfolder")],
    step: Annotated[int | None, typer.Option(help="a training step with snapshots [default: the last]")] = None,
) -> None:
    """Compute EMA weights of any length after training, as folders for `difflab sample run=`."""
    import torch

    from difflab.averaging.snapshots import length_name, recipe_for, reconstruct
    from difflab.config.stored import read_train_config
    from difflab.interop.keymap import shapes_of
    from difflab.interop.native import save_export
    from difflab.parts.selection import written
    from difflab.tasks.build import build_model

    lengths = _lengths(sigma_rel)
    snapshots = _snapshots_of(run)
    recipes = [recipe_for(length, snapshots, step) for length in lengths]
    config = read_train_config(run / "config.yaml").model()
    with torch.device("meta"):
        expected = shapes_of(written(build_model(config).as_module()))
    for recipe in recipes:
        folder = out if len(recipes) == 1 else out / length_name(recipe.wanted.sigma_rel)
        state = reconstruct(recipe, expected)
        save_export(folder, state, config.model_dump(mode="json"), {"run": str(run), "power_ema": recipe.facts()})
        say(f"{folder}: {_described(recipe)}")
    say(f"try `{next_command(config, folder)}`")


def _lengths(text: str) -> list[float]:
    from difflab.averaging.profiles import gamma_of

    lengths = []
    for part in text.split(","):
        try:
            length = float(part)
        except ValueError:
            raise UserError(f"--sigma-rel {text}: {part!r} is not a number; write 0.075 or 0.05,0.1,0.15") from None
        with user_errors("--sigma-rel"):
            gamma_of(length)
        lengths.append(length)
    return sorted(set(lengths))


def _snapshots_of(run: Path) -> list[Snapshot]:
    from difflab.averaging.snapshots import snapshots_in
    from difflab.tracking.rundir import RunDirectory

    directory = RunDirectory(run)
    if not directory.config.is_file():
        raise UserError(
            f"{run} is not a run directory (it has no config.yaml): give one trained with callbacks=power_ema"
        )
    snapshots = snapshots_in(directory.power_ema)
    if not snapshots:
        raise UserError(
            f"{run} has no snapshots in weights/power_ema: train with callbacks=power_ema, or with "
            "'callbacks.power_ema={}' in addition to another choice of callbacks"
        )
    return snapshots


def _described(recipe: Recipe) -> str:
    profiles = [snapshot.profile for snapshot in recipe.snapshots]
    made = f"sigma_rel {recipe.wanted.sigma_rel:g} (gamma {recipe.wanted.gamma:.4g}) at step {recipe.wanted.step}"
    if profiles == [recipe.wanted]:
        return f"{made}, tracked in training"
    tracked = ", ".join(f"{length:g}" for length in sorted({p.sigma_rel for p in profiles}))
    steps = f"steps {profiles[0].step} to {profiles[-1].step}" if len({p.step for p in profiles}) > 1 else "one step"
    return f"{made}, made of {len(profiles)} snapshots (sigma_rel {tracked}; {steps}), profile error {recipe.error:.2%}"
