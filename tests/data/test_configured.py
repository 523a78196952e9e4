"""The data set of a configuration: every `made_with` of conf/ makes what its file describes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from difflab.commands.composing import compose_and_validate
from difflab.commands.data_arguments import find_kind, parse_arguments, validated
from difflab.commands.data_make import TEXTS, MakeConfig, make_data
from difflab.config.axes import SOURCES
from difflab.config.data import DataConfig
from difflab.config.groups import contents
from difflab.config.source import SourceConfig
from difflab.config.train import TrainConfig
from difflab.data.build import build_dataset
from difflab.data.configured import open_configured, samples_of
from difflab.data.contents import captions_of, phrases_of
from difflab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
STATED = {path.stem: contents("data", path.stem) or {} for path in sorted((CONF / "data").glob("*.yaml"))}
MADE = {name: values["made_with"] for name, values in STATED.items() if values["made_with"] is not None}
SHAPES = [name for name, made_with in MADE.items() if "source=shapes" in made_with]


def source_of(made_with: str) -> tuple[MakeConfig, SourceConfig]:
    given = parse_arguments([*shlex.split(made_with), "out=somewhere"], "source", TEXTS)
    options, source = validated(MakeConfig, SOURCES, find_kind(SOURCES, given["source"]), given)
    assert isinstance(source, SourceConfig)
    return options, source


def make(made_with: str, out: Path, *more: str) -> Path:
    """A few samples of what the options make."""
    kept = [word for word in shlex.split(made_with) if not word.startswith(("n=", "val="))]
    make_data([*kept, f"out={out}", "n=8", "val=2", "workers=0", *more])
    return out


@pytest.mark.parametrize("name", MADE)
def test_every_command_is_valid_and_gives_the_size_that_its_file_states(name: str) -> None:
    _, source = source_of(MADE[name])
    resolution = getattr(source, "resolution", None)
    cropped = STATED[name]["crop"] != "none"
    native = name in ("cifar10", "downsampled_imagenet64")
    assert resolution == STATED[name]["image_size"] or (resolution is None and (cropped or native))


@pytest.mark.parametrize("name", MADE)
def test_a_file_states_its_own_command_and_one_place_has_one(name: str) -> None:
    """What a file builds on was made otherwise, and lies elsewhere."""
    own = (CONF / "data" / f"{name}.yaml").read_text().splitlines()
    assert [line.partition(":")[0] for line in own if line.startswith(("path:", "made_with:"))] == ["path", "made_with"]
    assert {
        other for other, made in MADE.items() if STATED[other]["path"] == STATED[name]["path"] and made != MADE[name]
    } == set()


@pytest.mark.parametrize("name", SHAPES)
def test_what_the_command_makes_is_what_the_file_reads(name: str, tmp_path: Path) -> None:
    values = STATED[name]
    every = ["label", "caption", "boxes", "phrases", *(["segmentation"] if "maps" in name else [])]
    fields = list(dict.fromkeys([*values["fields"], *every]))
    data = DataConfig(**{**values, "path": str(make(MADE[name], tmp_path / "data")), "fields": fields})
    for split in (data.train_split, data.val_split):
        assert split is not None
        sample = build_dataset(data, split=split)[0]
        assert sample["image"].shape == (3, data.image_size, data.image_size)
        assert sample.keys() >= set(fields)


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        ("ddpm/shapes32", "resolution=32 objects=1 'sizes=[large]' 'shapes=[circle,triangle]'"),
        ("schedules/shapes32_linear", "resolution=32 objects=1 'sizes=[large]'"),
        ("ldm/shapes64_semantic", "resolution=64 segmentation=true"),
    ],
)
def test_an_experiment_without_its_data_names_the_command(experiment: str, options: str) -> None:
    overrides = [f"experiment={experiment}", "data.path=gone"]
    config, _ = compose_and_validate("train", TrainConfig, overrides, checking=True)
    with pytest.raises(UserError) as caught:
        build_dataset(config.data, split="train")
    assert str(caught.value).endswith(
        f"does not exist; make it with `difflab data make source=shapes {options} out=gone`"
    )


def configured(path: Path, made_with: str | None, **values: Any) -> DataConfig:
    return DataConfig(path=str(path), image_size=16, batch_size=1, made_with=made_with, **values)


@pytest.fixture(scope="module")
def without_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("source=shapes resolution=16 objects=1", tmp_path_factory.mktemp("shapes") / "data")


@pytest.mark.parametrize(
    "made_with",
    ["source=shapes resolution=16 segmentation=true", "source=folder path=<maps>", "source=shapes objects=9"],
)
def test_a_missing_field_is_answered_with_the_command_of_another_data_set(without_maps: Path, made_with: str) -> None:
    command = f"make another data set with `difflab data make {made_with} out=<another directory>`, or take"
    with pytest.raises(UserError, match=r"has no segmentation \(.seg.png files\) in split 'train'; add") as caught:
        build_dataset(configured(without_maps, made_with, fields=["segmentation"]), split="train")
    assert command in str(caught.value)


@pytest.mark.parametrize("made_with", [None, "source=shapes resolution=16 objects=1 format=webp"])
def test_a_command_that_would_make_the_same_again_is_not_named(without_maps: Path, made_with: str | None) -> None:
    data = configured(without_maps, made_with)
    with pytest.raises(UserError, match="has no segmentation") as caught:
        samples_of(data, open_configured(data), "train", ("segmentation",))
    assert "difflab data make" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "field"), [(lambda data: captions_of(data, "train"), "caption"), (phrases_of, "phrases")]
)
def test_texts_that_a_model_learns_from_are_missed_alike(
    read: Callable[[DataConfig], Iterator[str]], field: str, tmp_path: Path, write_tar: Any, encoded: Any
) -> None:
    """They are read before training begins."""
    write_tar(tmp_path / "data/train-000000.tar", {"a.png": encoded()})
    data = configured(tmp_path / "data", "source=shapes resolution=16")
    with pytest.raises(UserError, match=f"has no {field} .* with `difflab data make source=shapes resolution=16 out="):
        next(read(data))
