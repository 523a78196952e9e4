import re
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from difflab.commands.composing import choices_of, compose, compose_and_validate, to_plain
from difflab.conf_dir import conf_dir
from difflab.config import groups
from difflab.config.train import TrainConfig
from difflab.errors import UserError


def test_composing_gives_plain_resolved_containers_and_the_name_of_the_experiment() -> None:
    composed = compose("train", ["experiment=ddpm/shapes32", "data.image_size=16"])
    assert composed["experiment"] == "ddpm/shapes32"
    assert composed["data"]["image_size"] == 16
    assert "hydra" not in composed
    assert type(composed["network"]["channel_mult"]) is list


def test_without_an_experiment_the_run_is_called_custom() -> None:
    assert compose("train", [])["experiment"] == "custom"


def test_what_the_user_says_wins_over_the_experiment() -> None:
    assert compose("train", ["experiment=ddpm/shapes32", "optimizer.lr=0.5"])["optimizer"]["lr"] == 0.5
    assert compose("train", ["optimizer.lr=0.5", "experiment=ddpm/shapes32"])["optimizer"]["lr"] == 0.5


def test_composing_twice_in_one_process_leaves_nothing_behind() -> None:
    first = compose("train", ["experiment=ddpm/cifar10", "seed=4"])
    assert compose("train", ["experiment=ddpm/shapes32"])["seed"] == 0
    assert compose("train", ["experiment=ddpm/cifar10", "seed=4"]) == first


def test_a_validated_configuration_comes_with_what_it_was_made_from() -> None:
    config, plain = compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32"])
    assert config.model_dump()["trainer"] == plain["trainer"]


def test_choices_are_named_as_they_are_given_on_the_command_line() -> None:
    assert "ddpm/shapes32" in choices_of("experiment")
    assert choices_of("sampler") == sorted(choices_of("sampler"))
    assert "schedule/linear" in choices_of("diffusion")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sampler=dim", ["sampler=dim: no such choice", "did you mean ddim?"]),
        ("experiment=ddpm/shapes3", ["mean ddpm/shapes32? (known: ddpm/celebahq256, ", " adm/*, autoencoder/*, "]),
        ("experiment=ddpm", ["experiment=ddpm", "ddpm/shapes32"]),
        ("experiment=null", ["experiment=null", "ddpm/shapes32", "leave experiment out"]),
        ("debug=null", ["debug=null: choose one of fast, or leave debug out"]),
        ("data=null", ["data=null: choose one of", "leave data out"]),
        ("diffusion/schedule=null", ["diffusion/schedule=null: choose one of", "linear"]),
        ("diffusion/schedule=lin", ["diffusion/schedule=lin", "linear"]),
        ("smapler=ddim", ["unknown key 'smapler'; did you mean 'sampler'?"]),
        ("compile=true", ["unknown key 'compile'; did you mean 'trainer.compile'?"]),
        ("steps=20", ["unknown key 'steps'; did you mean 'sampler.steps'?"]),
        ("size=20", ["unknown key 'size'", "known here: data, "]),
        ("optimizer.l=1", ["unknown key 'optimizer.l'; did you mean 'optimizer.lr'?"]),
        ("optimizer.pace=1", ["unknown key 'optimizer.pace'", "known here: kind, lr"]),
        ("optimizer.schedule={pace: 1}", ["unknown key 'optimizer.schedule.pace'", "known here: warmup_steps"]),
        (
            "conditioning.class_label.classes=6",
            ["conditioning, as chosen here, has no 'class_label'", "conditioning=class"],
        ),
        ("seed:3", ["'seed:3' is not an override", "key=value"]),
        ("name=a=b", ["name=a=b", "'name=\"a=b\"'"]),
        ("resume=step=100.ckpt", ["'resume=\"step=100.ckpt\"'"]),
        ("seed=1,2", ["seed=1,2", "[1,2]"]),
        ("sampler=", ["sampler=: no such choice", "heun"]),
        ("data=data/mine", ["data=data/mine: no such choice; a directory is given by data.path=data/mine (known: "]),
        ("guidance=[1]", ["guidance=[1]: choose one of autoguidance, ", "without brackets"]),
        ("guidance=[]", ["guidance=[]: choose one of autoguidance, "]),
        ("guidance@guidance=[{a: 1}]", ["choose one of autoguidance, "]),
        ("network.channel_mult=[1,2", ["network.channel_mult=[1,2"]),
        ("+trainer.max_steps=3", ["trainer.max_steps", "without +"]),
        ("~nothing", ["~nothing", "unknown key 'nothing'"]),
        ("data.path=${nowhere}", ["data.path", "nowhere"]),
    ],
)
def test_what_hydra_refuses_is_one_line_that_names_the_override(override: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        compose("train", ["experiment=ddpm/shapes32", override])
    message = str(refusal.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["sampler=heun", "sampler.eta=1"],
            "sampler.eta=1: sampler=heun has no 'eta'; sampler=ddim, ",
        ),
        (
            ["sampler=ddim", "sampler.s_churn=1"],
            "sampler=ddim has no 's_churn'; sampler=dpm_2, sampler=edm_ablation, sampler=euler, ",
        ),
        (["sampler.s_churn=1"], "sampler, as chosen here, has no 's_churn'; sampler=dpm_2, sampler=edm_ablation, "),
        # The name of an option of another choice is no slip of the pen.
        (
            ["sampler=ancestral", "sampler.end=last_row"],
            "has no 'end'; sampler=ddim_inversion has it; known here: kind",
        ),
        (["guidance=none", "guidance.reference.run=x"], "guidance=none has no 'reference'; guidance=autoguidance, "),
        (["sampler=heun", "sampler.step=5"], "unknown key 'sampler.step'; did you mean 'sampler.steps'?"),
    ],
)
def test_a_key_of_another_choice_says_which_choices_have_it(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as refusal:
        compose("sample", ["run=somewhere", *overrides])
    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_key_below_null_says_how_its_section_is_given() -> None:
    line = "is null here: set the whole section, as in 'conditioning.low_res.blur={kernel_size:...}'"
    with pytest.raises(UserError, match=re.escape(line)):
        compose("train", ["experiment=sr3/shapes32", "conditioning.low_res.blur.kernel_size=3"])
    with pytest.raises(UserError, match=r"unknown key 'conditioning\.low_res\.blurr'; did you mean"):
        compose("train", ["experiment=sr3/shapes32", "conditioning.low_res.blurr.kernel_size=3"])


def test_a_key_inside_what_another_choice_has_says_so_too() -> None:
    line = "callbacks, as chosen here, has no 'power_ema.every'; callbacks=power_ema has it"
    with pytest.raises(UserError, match=line):
        compose("train", ["experiment=ddpm/shapes32", "callbacks.power_ema.every=2"])


def test_quoted_as_it_was_said_a_value_with_an_equals_sign_arrives() -> None:
    assert compose("train", ['resume="step=100.ckpt"'])["resume"] == "step=100.ckpt"


def test_the_override_that_is_wrong_is_named_among_others_that_are_right() -> None:
    with pytest.raises(UserError) as refusal:
        compose("train", ["experiment=ddpm/shapes32", "seed=1", "optimizer.rate=1", "trainer.max_steps=3"])
    assert "optimizer.rate" in str(refusal.value)
    assert "max_steps" not in str(refusal.value)


def test_a_value_that_has_to_be_given_is_asked_for() -> None:
    composed = OmegaConf.create({"init": {"path": "???"}})
    with pytest.raises(UserError, match=r"init\.path has no value: give one, as in init\.path=\.\.\."):
        to_plain(composed, {})


def test_an_experiment_chooses_anew_among_what_its_task_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(conf_dir(), conf)
    defaults = [
        "override /task: noisy_classifier",
        "override /callbacks: large",
        "override /network: adm_classifier_64",
    ]
    lines = ["# @package _global_", "defaults:", *(f"  - {line}" for line in defaults)]
    lines += ["callbacks: { sample_grid: null }", "network: { dropout: 0.25 }"]
    (conf / "experiment" / "own.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(groups, "conf_dir", lambda: conf)
    config, plain = compose_and_validate("train", TrainConfig, ["experiment=own", "network.norm_eps=1e-3"])
    assert config.callbacks.checkpoint.every_steps == 10_000, "large, not the classifier's"
    assert (config.network.kind, config.network.dropout, config.network.norm_eps) == ("unet_encoder", 0.25, 1e-3)
    assert plain["metrics"] == {}, "what the experiment leaves alone is as the task chose it"
    with pytest.raises(UserError, match=r"^task=denoising, but experiment=own has task=noisy_classifier"):
        compose("train", ["task=denoising", "experiment=own"])
