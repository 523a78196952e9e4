"""The defaults of `sample` and `evaluate` from the stored run: its model, and its sampler and guidance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from difflab.commands.hydra_app import SHOWING
from difflab.config.defaults import SUFFIX
from difflab.config.groups import choice_file
from difflab.config.overrides import quoted
from difflab.config.task import TASKS
from difflab.errors import UserError

DEFAULTS_OF_RUN = {"sampler", "guidance"}


def parts_of_model() -> set[str]:
    """The keys that define a model of any task."""
    return {part for task in TASKS.values() for part in task.model.model_fields} - DEFAULTS_OF_RUN


def with_defaults_of_run(
    argv: Sequence[str], *, data: bool = False, drawing: bool = True, own: Sequence[str] = ()
) -> list[str]:
    """The overrides, preceded by those that make the stored run's sampler, guidance (and data) the starting point.

    A group that the user chooses (`sampler=ddim`) starts from that choice instead.
    drawing: whether the command samples the run, and has a sampler and guidance. own: keys of the command that share
        their name with a part of a model.
    Raises UserError for overrides of the model itself, which comes from the run.
    """
    refuse_parts_of_model([argument for argument in argv if argument.partition("=")[0] not in own])
    run = _value_of("run", argv)
    if run == "":
        raise UserError(
            "run has no value: give one, as in run=... (a run directory, an exported folder or a checkpoint)"
        )
    if run is None:
        refuse_top_level(argv)
    if run is None or any(a.split("=")[0] in SHOWING for a in argv):
        return list(argv)
    from difflab.pipelines.build import require_drawing
    from difflab.pipelines.stored import find_stored

    stored = find_stored(run, "auto")
    groups: list[tuple[str, dict[str, Any]]] = []
    if drawing:
        model = require_drawing(run, stored.config)
        guidance = model.guidance.model_dump()
        _leave_out_the_other_convention(guidance, argv)
        groups += [("sampler", model.sampler.model_dump()), ("guidance", guidance)]
    if data and stored.train is not None:
        # The class names belong to the model; those of other data are in its index.
        groups.append(("data", stored.train.data.model_dump(exclude={"class_names"})))
    elif data and any(argument.startswith("data.") for argument in argv):
        # An export and imported weights have no data of their own, but take images of one size.
        images = {"image_size": stored.config.image_size, "channels": stored.config.channels}
        groups.append(("data", {"kind": "shards", **images, "batch_size": 1}))
    defaults: list[str] = []
    for group, values in groups:
        if _value_of(group, argv) is None:
            kind = values.pop("kind")
            defaults.append(f"{group}={kind if choice_file(group, kind) is not None else kind + SUFFIX}")
            defaults += [f"{group}.{key}={in_hydra(value)}" for key, value in values.items()]
    return [*defaults, *argv]


def of_images(why: str, own: Sequence[str] = ()) -> Callable[[Sequence[str]], list[str]]:
    """`with_defaults_of_run` for a command that measures on real images and generates none.

    why: the reason that there is no guidance and no sampler, for the error. own: as in `with_defaults_of_run`.
    """

    def complete(argv: Sequence[str]) -> list[str]:
        for argument in argv:
            key = argument.partition("=")[0].lstrip("+~")
            if re.split(r"[./@]", key)[0] in ("guidance", "sampler", "pipeline"):
                raise UserError(f"{argument}: {why}, without guidance or a sampler; leave {key} out")
        return with_defaults_of_run(argv, data=True, drawing=False, own=own)

    return complete


def _leave_out_the_other_convention(guidance: dict[str, Any], argv: Sequence[str]) -> None:
    """Removes the run's scale if the user sets `paper_w`, and vice versa: both set the same quantity."""
    given = {argument.partition("=")[0] for argument in argv}
    parts = {f"guidance.{name}": part for name, part in guidance.items() if isinstance(part, dict)}
    for place, section in {"guidance": guidance, **parts}.items():
        for key, other in (("scale", "paper_w"), ("paper_w", "scale")):
            if other in section and f"{place}.{key}" in given:
                section[other] = None


def in_hydra(value: Any) -> str:
    """A value in the grammar of Hydra's overrides: JSON, except for what is quoted in it and how."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{in_hydra(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_hydra, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def refuse_top_level(argv: Sequence[str]) -> None:
    """Raises UserError for a top-level sampler or guidance of a cascade, whose stages have their own."""
    pipeline = _value_of("pipeline", argv)
    if pipeline in (None, "single", "resize"):
        return
    for argument in argv:
        key, _, place = argument.partition("=")[0].partition("@")
        group = re.split(r"[./]", key.lstrip("+~"))[0]
        # `sampler@pipeline.stages.base.sampler=heun` is a choice for a stage.
        if group in DEFAULTS_OF_RUN and not place.startswith("pipeline."):
            raise UserError(
                f"{argument}: the stages of pipeline={pipeline} have their own samplers and guidance; write "
                f"pipeline.stages.<name>.{key.lstrip('+~')}=... (a choice of a group: "
                f"{group}@pipeline.stages.<name>.{group}=...)"
            )


def refuse_parts_of_model(argv: Sequence[str]) -> None:
    """Raises UserError for overrides of diffusion, network and the like."""
    for argument in argv:
        key = argument.partition("=")[0].lstrip("+~")
        if re.split(r"[./@]", key)[0] in parts_of_model():
            raise UserError(
                f"{argument}: the model comes from the run as it was trained; leave {key} out "
                "(fewer steps are sampler.steps=...)"
            )


def _value_of(key: str, argv: Sequence[str]) -> str | None:
    found = [argument.split("=", 1)[1] for argument in argv if argument.startswith(f"{key}=")]
    return found[-1].strip("'\"") if found else None
