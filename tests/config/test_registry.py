"""Registries of choices: validated, written and read again as what they are; every kind of every axis."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from difflab.config.axes import AXES, UNFILED
from difflab.config.base import Config
from difflab.config.defaults import MISSING, SUFFIX, default_choices, defaults_of
from difflab.config.registry import Kind, Names, Registry
from difflab.config.validate import validate
from difflab.errors import UserError

FILED = [(axis, kind) for axis in AXES for kind in axis.values()]
EVERY = [*FILED, *((axis, kind) for axis in UNFILED for kind in axis.values())]
WIDTHS = {"base_channels": 32, "channel_mult": [1, 2], "blocks_per_level": 1}
BLOCKS = {"width": 16, "layers": 1, "heads": 2}
NEEDED: dict[str, dict[str, Any]] = {
    "conditioning=text_transformer": {"tokenizer": {"kind": "clip"}, **BLOCKS},
    "conditioning=token_transformer": {"tokenizer": {"kind": "clip"}, "width": 16, "layers": 1},
    "conditioning=spatial_rescaler": {"classes": 7, "stages": 2},
    "conditioning=clip_image": {"weights": {"path": "clip"}},
    "conditioning=layout": {"width": 16, "layers": 1},
    "tokenizer=pretrained": {"file": {"path": "tokenizer.json"}, "vocabulary": 9, "padding": 0},
    "network=clip": {
        "embedding_dim": 8,
        "activation": "gelu",
        "image": {"kind": "vit", "patch_size": 8, **BLOCKS},
        "text": {"kind": "transformer", **BLOCKS},
    },
    "network=autoencoder": {
        "channel_mult": [1, 2],
        "z_channels": 4,
        "latent_channels": 4,
        "regularizer": {"kind": "kl"},
    },
    "network/regularizer=vq": {"codes": 16},
    "network/image=vit": {"patch_size": 8, **BLOCKS},
    "network/image=resnet": {"depths": [1, 1, 1, 1], "width": 4, "heads": 2},
    "network/text=transformer": {**BLOCKS},
    "conditioning=text_encoder": {"encoder": {"kind": "bert", "weights": {"path": "bert"}}, "width": 16},
    **{
        f"text_encoder={kind}": {"weights": {"path": kind}}
        for kind in ("bert", "t5", "transformers_clip", "difflab_clip")
    },
    "conditioning=class": {"classes": 6},
    "conditioning=class_token": {"classes": 6, "width": 16},
    "conditioning=low_res": {"size": 8},
    "conditioning=augment": {"probability": 0.1},
    "network=unet": {**WIDTHS},
    "network=unet_encoder": {**WIDTHS, "classes": 6, "pool": "adaptive"},
    "guidance=classifier": {"run": "runs/c"},
    "guidance=composed": {"classifier": {"run": "runs/c"}},
    "source=folder": {"path": "photos"},
    "encoder=clip": {"run": "runs/clip"},
    "encoder=first_stage": {"run": "runs/first_stage"},
    "metrics=classes": {"classifier": "runs/c"},
    "metrics=clip_image_similarity": {"clip": "runs/c"},
    "metrics=clip_score": {"clip": "runs/c"},
    "diffusion=discrete": {"schedule": {"kind": "linear"}, "prediction": "eps"},
    "diffusion=continuous": {"sigma_distribution": {"kind": "cosine"}, "prediction": "v"},
}
"""What kinds cannot be made without."""


class Shape(Config):
    kind: str


SHAPES = Registry("shape")


@SHAPES.register("shapes:round")
class Round(Shape):
    """A round one.

    radius: in pixels.
    """

    kind: Literal["round"]
    radius: float = 1.0
    middle: tuple[int, int] | None = None


class Frame(Config):
    shape: Annotated[Shape, SHAPES]
    shapes: dict[str, Annotated[Shape, SHAPES]] = Field(default_factory=dict)


def ids(value: object) -> str | None:
    return f"{value.group}" if isinstance(value, Registry) else value.name if isinstance(value, Kind) else None


@pytest.mark.parametrize(("axis", "kind"), EVERY, ids=ids)
def test_every_kind_is_written_and_read_again(axis: Registry, kind: Kind) -> None:
    adapter = TypeAdapter(Annotated[Config, axis])
    made = adapter.validate_python({"kind": kind.name, **NEEDED.get(f"{axis.group}={kind.name}", {})})
    assert type(made) is kind.config.complete()
    written = made.plain()
    assert written["kind"] == kind.name
    assert adapter.validate_python(written) == made
    # As the field of something that knows the base alone.
    assert adapter.dump_python(made) == adapter.dump_python(made, mode="json") == written


@pytest.mark.parametrize(("axis", "kind"), EVERY, ids=ids)
def test_every_kind_says_in_a_line_what_it_is_and_can_be_built(axis: Registry, kind: Kind) -> None:
    assert len(kind.summary) > 10
    assert callable(kind.load_builder())


@pytest.mark.parametrize(("axis", "kind"), FILED, ids=ids)
def test_files_can_begin_with_the_defaults_of_every_kind(axis: Registry, kind: Kind) -> None:
    (contents,) = (c for group, name, c in default_choices(AXES) if (group, name) == (axis.group, kind.name + SUFFIX))
    needed = NEEDED.get(f"{axis.group}={kind.name}", {})
    any_will_do = kind.name == "composed"
    assert {key for key, value in contents.items() if value == MISSING} == (set() if any_will_do else set(needed))
    adapter = TypeAdapter(Annotated[Config, axis])
    assert adapter.validate_python({**contents, **needed}) == adapter.validate_python({"kind": kind.name, **needed})


def test_a_field_typed_by_the_base_keeps_the_keys_of_its_kind() -> None:
    frame = Frame.model_validate({"shape": {"kind": "round", "radius": 2.0}, "shapes": {"a": {"kind": "round"}}})
    expected = {"kind": "round", "radius": 2.0, "middle": None}
    assert frame.model_dump()["shape"] == frame.plain()["shape"] == expected
    assert frame.model_dump()["shapes"]["a"] == {**expected, "radius": 1.0}
    assert Frame.model_validate(frame.model_dump()) == frame


@pytest.mark.parametrize("value", [{"kind": "square"}, {"radius": 1.0}, "round", None, 3, {"kind": 3}, {"kind": None}])
def test_what_is_no_choice_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="union_tag"):
        Frame.model_validate({"shape": value})


def test_the_default_kind_need_not_be_said() -> None:
    axis = Registry("shape", default="round")
    axis.register("shapes:round")(Round)
    assert TypeAdapter(Annotated[Shape, axis]).validate_python({"radius": 3.0}) == Round(kind="round", radius=3.0)


@pytest.mark.parametrize("name", ["round", "square"])
def test_a_word_stands_for_a_kind_where_the_axis_says_so(name: str) -> None:
    axis = Registry("shape", words=True)
    axis.register("shapes:round")(Round)
    adapter: TypeAdapter[Shape] = TypeAdapter(Annotated[Shape, axis])
    if name == "round":
        assert adapter.validate_python(name) == Round(kind="round")
        assert adapter.dump_python(adapter.validate_python(name))["kind"] == "round"
    else:
        with pytest.raises(ValidationError, match=r"'square' found using 'kind' does not match .*'round'"):
            adapter.validate_python(name)


NAMES = Names("hue", "math")
NAMES.register("red", "math:sin")
NAMES.register("green", "math:cos")


class Painted(Config):
    hue: Annotated[str, NAMES]


def test_names_are_validated_and_built() -> None:
    assert list(NAMES) == ["red", "green"]
    painted = Painted(hue="red")
    assert painted.plain() == painted.model_dump() == {"hue": "red"}
    assert NAMES.builder("red") is math.sin
    assert NAMES.package("red") == "math"
    with pytest.raises(ValueError, match="hue='blue' is not one of red, green"):
        NAMES.builder("blue")


@pytest.mark.parametrize("value", ["blue", 3, None, {"kind": "red"}])
def test_what_is_no_name_is_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"^hue=.*: input should be 'red' or 'green'"):
        validate(Painted, {"hue": value})


def test_a_word_is_registered_once() -> None:
    NAMES.register("red", "math:sin")
    with pytest.raises(UserError, match="hue: two choices are named red, one from math and one from others"):
        NAMES.register("red", "others:sin")


def test_a_name_is_taken_once() -> None:
    class Other(Shape):
        kind: Literal["round"]

    with pytest.raises(UserError, match=r"shape: two choices are named round"):
        SHAPES.register("others:round")(Other)
    # The same one, imported again, is no other.
    SHAPES.register("shapes:round")(Round)


def test_defaults_are_plain() -> None:
    assert defaults_of(SHAPES["round"]) == {"kind": "round", "radius": 1.0, "middle": None}
