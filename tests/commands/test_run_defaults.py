from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from difflab.commands.composing import compose, compose_and_validate
from difflab.commands.run_defaults import refuse_parts_of_model, with_defaults_of_run
from difflab.config.guidance import GuidanceConfig
from difflab.config.sample import EvaluateConfig, SampleConfig
from difflab.diffusion.guidance.config import ClassifierFreeOptions, ComposedGuidance
from difflab.errors import UserError
from tiny_runs import mistake


def test_defaults_stand_before_what_the_user_says(tiny_run: Path) -> None:
    arguments = with_defaults_of_run([f"run={tiny_run}", "sampler.steps=9"], data=True)
    assert arguments[-2:] == [f"run={tiny_run}", "sampler.steps=9"]
    config, _ = compose_and_validate("evaluate", EvaluateConfig, arguments)
    assert config.sampler.steps == 9
    assert config.data is not None
    assert config.data.image_size == 16


def test_the_last_run_that_is_named_counts(tiny_run: Path, tmp_path: Path) -> None:
    """As it does for Hydra, which reads the same overrides."""
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    stored = yaml.safe_load((other / "config.yaml").read_text())
    stored["sampler"]["steps"] = 7
    (other / "config.yaml").write_text(yaml.safe_dump(stored))
    for first, last, steps in ((tiny_run, other, 7), (other, tiny_run, 5)):
        arguments = with_defaults_of_run([f"run={first}", f"run={last}"])
        config, _ = compose_and_validate("sample", SampleConfig, arguments)
        assert (config.run, config.sampler.steps) == (str(last), steps)


def test_every_value_of_a_run_survives_the_way_through_hydra(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    stored = yaml.safe_load((run / "config.yaml").read_text())
    stored["data"]["path"] = "/mnt/größe, (a) 'b'/x=1"
    stored["sampler"] |= {"steps": "10,5", "eta": 1e-5}
    (run / "config.yaml").write_text(yaml.safe_dump(stored))
    config, _ = compose_and_validate("evaluate", EvaluateConfig, with_defaults_of_run([f"run={run}"], data=True))
    assert config.data is not None
    assert config.data.path == stored["data"]["path"]
    assert (config.sampler.steps, config.sampler.eta) == ("10,5", 1e-5)


@pytest.mark.parametrize("showing", ["--help", "--cfg", "--info"])
def test_showing_the_configuration_reads_no_run(showing: str) -> None:
    assert with_defaults_of_run(["run=nowhere", showing]) == ["run=nowhere", showing]


@pytest.mark.parametrize(
    "override", ["data.path=x", "networks=1", "sampler.steps=3", "experimental=1", "run=diffusion"]
)
def test_what_only_looks_like_a_part_of_the_model_is_left_alone(override: str) -> None:
    refuse_parts_of_model([override])


@pytest.mark.parametrize("override", ["experiment=ddpm/shapes32", "image_size=64", "~conditioning.class_label"])
def test_parts_of_the_model_are_refused(override: str) -> None:
    with pytest.raises(UserError, match="the model comes from the run as it was trained"):
        refuse_parts_of_model([override])


@pytest.mark.parametrize("command", ["sample", "evaluate", "likelihood"])
def test_help_needs_no_torch(command: str) -> None:
    code = f"import sys; from difflab.cli import main; main(['{command}', '--help']); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "wandb"} & set(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "guidance",
    [
        {"kind": "composed", "classifier_free": {"scale": 2.0, "interval": [0.25, 1.5]}, "classifier": None},
        {"kind": "composed", "classifier": {"run": "a b/größe,x=1", "scale": 0.5, "gradient_at": "mean"}},
        {"kind": "classifier_free", "paper_w": 0.5, "reference": {"run": "weak", "conditioning": "unconditional"}},
    ],
)
def test_a_guidance_with_parts_survives_too(tiny_run: Path, tmp_path: Path, guidance: dict[str, object]) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    stored = yaml.safe_load((run / "config.yaml").read_text())
    stored["guidance"] = guidance
    (run / "config.yaml").write_text(yaml.safe_dump(stored))
    config, _ = compose_and_validate("evaluate", EvaluateConfig, with_defaults_of_run([f"run={run}"], data=True))
    assert config.guidance == TypeAdapter(GuidanceConfig).validate_python(guidance)


@pytest.mark.parametrize(
    ("stored", "override", "scale"),
    [
        ({"kind": "classifier_free", "scale": 2.0}, "guidance.paper_w=0.3", 1.3),
        ({"kind": "classifier_free", "paper_w": 2.0}, "guidance.scale=1.5", 1.5),
        ({"kind": "composed", "classifier_free": {"scale": 2.0}}, "guidance.classifier_free.paper_w=3", 4.0),
    ],
)
def test_the_scale_may_be_given_in_either_convention(
    tiny_run: Path, tmp_path: Path, stored: dict[str, object], override: str, scale: float
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"guidance": stored}))
    arguments = with_defaults_of_run([f"run={run}", override], data=True)
    guidance = compose_and_validate("evaluate", EvaluateConfig, arguments)[0].guidance
    free = guidance.parts["classifier_free"] if isinstance(guidance, ComposedGuidance) else guidance
    assert isinstance(free, ClassifierFreeOptions)
    assert free.effective_scale == scale


def test_a_cascade_leaves_no_place_for_a_sampler_or_guidance_beside_it() -> None:
    with pytest.raises(UserError, match=r"^sampler\.steps=5: the stages of pipeline=adm_u_256 have their own samplers"):
        with_defaults_of_run(["pipeline=adm_u_256", "sampler.steps=5"])
    assert with_defaults_of_run(["pipeline=adm_u_256", "pipeline.stages.base.sampler.steps=5"])
    with pytest.raises(UserError, match=r"group: sampler@pipeline\.stages\.<name>\.sampler=\.\.\.\)$"):
        with_defaults_of_run(["pipeline=adm_u_256", "sampler@elsewhere=heun"])


@pytest.mark.parametrize("group", ["sampler", "guidance"])
def test_a_stage_of_a_cascade_has_the_choice_that_the_refusal_names(group: str) -> None:
    choice = {"sampler": "heun", "guidance": "classifier_free"}[group]
    place = f"pipeline.stages.upsampler.{group}"
    given = ["pipeline=cascade", f"{group}@{place}={choice}"]
    assert with_defaults_of_run(given) == given
    assert compose("sample", given)["pipeline"]["stages"]["upsampler"][group]["kind"] == choice
    with pytest.raises(UserError, match=rf"^{place}={choice}: this is a choice of a group: write {group}@{place}="):
        compose_and_validate("sample", SampleConfig, ["pipeline=cascade", f"{place}={choice}"])


@pytest.mark.parametrize("command", ["sample", "evaluate", "likelihood"])
@pytest.mark.parametrize("run", ["run=", "run=''", 'run=""'])
def test_a_run_of_no_name_is_no_run(command: str, run: str) -> None:
    assert "run has no value: give one" in mistake(command, run, "n=1")
