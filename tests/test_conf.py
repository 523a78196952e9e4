"""Every YAML is a test case: it composes, validates, and its experiment builds and takes a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from difflab.commands.composing import choices_of, compose, compose_and_validate
from difflab.conf_dir import conf_dir
from difflab.config.model import ModelConfig
from difflab.config.sample import EvaluateConfig, SampleConfig
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.models.build import build_diffusion, build_model

ROOT = Path(__file__).parents[1]
EXPERIMENTS = choices_of("experiment")
SMALL = [name for name in EXPERIMENTS if "shapes" in name]
LARGE = [name for name in EXPERIMENTS if name not in SMALL]
PARAMETERS = {
    "ddpm/cifar10": 35_746_307,
    "ddpm/celebahq256": 113_673_219,
    "ddpm/lsun_bedroom": 113_673_219,
    "ddpm/lsun_cat": 113_673_219,
    "ddpm/lsun_church": 113_673_219,
}
GROUPS = sorted(
    str(path.parent.relative_to(conf_dir()))
    for path in conf_dir().rglob("*.yaml")
    if path.parent != conf_dir() and "hydra" not in path.parts
)
CHOICES = sorted({(group, name) for group in set(GROUPS) for name in choices_of(group) if "/" not in name})


def test_there_are_experiments_of_both_sizes() -> None:
    assert SMALL
    assert set(PARAMETERS) <= set(LARGE)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_and_validates(experiment: str) -> None:
    config, plain = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    assert config.experiment == experiment
    assert TrainConfig.model_validate(plain) == config


@pytest.mark.parametrize(("group", "name"), [c for c in CHOICES if not c[0].startswith("experiment")])
def test_every_choice_of_every_group_validates(group: str, name: str) -> None:
    overrides = [f"{group}={name}"]
    if (group, name) == ("init", "weights"):
        overrides.append("init.path=runs/somewhere")
    if (group, name) == ("data", "shards"):
        overrides += ["data.path=data/mine", "data.image_size=32", "data.batch_size=8"]
    if (group, name) == ("diffusion/schedule", "jsd"):
        overrides.append("diffusion.prediction=x0")  # it ends in pure noise, where eps tells nothing of x0
    compose_and_validate("train", TrainConfig, overrides)


@pytest.mark.parametrize(("primary", "model"), [("sample", SampleConfig), ("evaluate", EvaluateConfig)])
@pytest.mark.parametrize("sampler", choices_of("sampler"))
def test_primary_configurations_validate(primary: str, model: type, sampler: str) -> None:
    compose_and_validate(primary, model, ["run=somewhere", f"sampler={sampler}"])


@pytest.mark.parametrize("experiment", SMALL)
def test_small_experiment_builds_on_the_meta_device(experiment: str) -> None:
    _on_meta(experiment)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", LARGE)
def test_large_experiment_builds_on_the_meta_device_with_the_published_size(experiment: str) -> None:
    assert _on_meta(experiment) == PARAMETERS[experiment]


def _on_meta(experiment: str) -> int:
    config, _ = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    with torch.device("meta"):
        model = build_model(ModelConfig.of(config))
    return sum(p.numel() for p in model.network.parameters())


@pytest.mark.parametrize("experiment", SMALL)
def test_small_experiment_is_about_as_large_as_it_says(experiment: str) -> None:
    config, _ = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    module = build_diffusion(config)
    assert sum(p.numel() for p in module.parameters()) < 5_000_000


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["experiment=ddpm/shapes23"], "did you mean ddpm/shapes32?"),
        (["experiment=ddpm/shapes32", "trainer.max_step=3"], "trainer.max_step"),
        (["experiment=ddpm/shapes32", "+trainer.max_step=3"], "did you mean 'trainer.max_steps'?"),
        (["experiment=ddpm/shapes32", "+bogus=1"], "unknown key 'bogus'"),
        (["experiment=ddpm/shapes32", "seed=abc"], "seed='abc'"),
        (["experiment=ddpm/shapes32", "sampler=dimm"], "did you mean ddim?"),
        (["experiment=ddpm/shapes32", "diffusion.timesteps=None"], "diffusion.timesteps='None'"),
        (["experiment=ddpm/shapes32", "optimizer.lr=-1"], "optimizer.lr=-1"),
        (["experiment=ddpm/shapes32", "trainer.accumulate=5"], "data.batch_size=16 cannot be split"),
        (["experiment=ddpm/shapes32", "seed"], "seed"),
        (["conditioning=class", "conditioning.class_label.classes=7"], "conditioning.class_label.classes=7 but data."),
        (["conditioning=class", "data.classes=null"], "conditioning.class_label.classes: the data has no classes; set"),
        (["experiment=ddpm/shapes32", "seed=1,2"], "seed=1,2"),
        (["experiment=ddpm/shapes32", "guidance.scale=2", "guidance.paper_w=1"], "give one of them"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        compose_and_validate("train", TrainConfig, overrides)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_point_of_a_sweep_is_a_valid_command(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    points: list[list[str]] = [[]]
    for name, parameter in sweep["parameters"].items():
        values = parameter.get("values", [parameter.get("value")])
        points = [[*point, f"{name}={value}"] for point in points for value in values]
    command = sweep["command"][2]
    model = {"train": TrainConfig, "evaluate": EvaluateConfig}[command]
    for point in points:
        compose_and_validate(command, model, point)


def test_a_class_conditioner_has_the_classes_of_the_data() -> None:
    config, _ = compose_and_validate("train", TrainConfig, ["conditioning=class", "data.classes=1000"])
    assert config.conditioning["class_label"].classes == 1000


def test_composing_leaves_no_trace() -> None:
    assert compose("train", ["experiment=ddpm/shapes32"]) == compose("train", ["experiment=ddpm/shapes32"])
