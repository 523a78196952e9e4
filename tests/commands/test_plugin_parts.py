"""One installed package with a guidance, a callback, a logger, a task and the parts of a network: the ordinary commands
use each, and name each where it is there twice or missing.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from difflab.commands.composing import compose_and_validate
from difflab.config.axes import CALLBACKS, GUIDANCE, INITIALISATIONS, LOGGERS, POOLS, RESAMPLINGS, TIME_EMBEDDINGS
from difflab.config.groups import contents
from difflab.config.model import ModelConfig
from difflab.config.task import TASKS
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from plugin_packages import Packages, packages  # noqa: F401 - a fixture
from tiny_runs import CLASSES, ON_CPU, TRAINING, difflab, done, mistake

GUIDED = '''
from typing import Annotated, ClassVar, Literal
from pydantic import Field
from difflab.config.axes import GUIDANCE
from difflab.config.guidance import GuidanceBase, GuidanceOptions

class PullOptions(GuidanceOptions):
    scale: Annotated[float, Field(ge=0)] = 1.0
    """How far."""

    @property
    def needs_null(self):
        return self.scale != 1.0

    @property
    def calls(self):
        return 2

@GUIDANCE.register("mix_pack.guiding:build")
class PullGuidance(GuidanceBase, PullOptions):
    """Away from the prediction without a condition."""

    part: ClassVar[type[GuidanceOptions] | None] = PullOptions

    kind: Literal["pull"]
'''
GUIDING = """
from difflab.diffusion.guidance.base import Guidance, NetworkInput
from difflab.types import Denoised

class Pull(Guidance):
    def __init__(self, scale, null):
        self.scale, self.null = scale, null

    def prepare(self, x, conditioning, step):
        return [NetworkInput(x, conditioning), NetworkInput(x, self.null)]

    def combine(self, predictions, step):
        told, untold = predictions
        away = lambda one, other: other + self.scale * (one - other)
        return Denoised(away(told.x0, untold.x0), away(told.eps, untold.eps), told.log_variance)

def build(options, parts):
    return [] if parts.null is None else [Pull(options.scale, parts.null)]
"""
WATCHED = '''
from difflab.config.axes import CALLBACKS, LOGGERS
from difflab.config.callbacks import CallbackBase
from difflab.config.logger import LoggerBase

@CALLBACKS.register("tally", "mix_pack.watching:Tally")
class TallyConfig(CallbackBase):
    """A file with the number of steps."""

    file: str = "tally.txt"
    """Where, in the run directory."""

@LOGGERS.register("lines", "mix_pack.watching:lines")
class LinesConfig(LoggerBase):
    """Rows as lines of JSON."""

    file: str = "lines.jsonl"
    """Where, in the run directory."""

@LOGGERS.register("hush", "mix_pack.watching:hush", switch=True)
class HushConfig(LoggerBase):
    """Nothing at all."""
'''
WATCHING = """
import contextlib
import json
from lightning.pytorch.callbacks import Callback
from difflab.tracking.clock import ClockedLogger

class Tally(Callback):
    def __init__(self, config, context):
        self.path = context.run.path / config.file

    def on_train_end(self, trainer, pl_module):
        self.path.write_text(str(pl_module.train_step))

    def owes(self, step, *, at_end):
        return at_end and not self.path.is_file()

class Lines(ClockedLogger):
    name = version = "lines"

    def __init__(self, file):
        self.file = file

    def log_hyperparams(self, *_):
        pass

    def log_metrics(self, metrics, step=None):
        self.file.write(json.dumps({key: float(value) for key, value in self.stamped(metrics, step).items()}) + "\\n")

@contextlib.contextmanager
def lines(config, context):
    with (context.run.path / config.file).open("a") as file:
        yield Lines(file)

@contextlib.contextmanager
def hush(config, context):
    yield None
"""
LEARNT = '''
from typing import Literal
from difflab.config.task import TASKS
from difflab.tasks.denoising.config import DenoisingModelConfig, DenoisingTrainConfig

class HalfModelConfig(DenoisingModelConfig):
    """A denoiser that was trained with half of the loss."""

    task: Literal["half"] = "half"

@TASKS.register(HalfModelConfig, build_model="mix_pack.learning:build_model", build_module="mix_pack.learning:build")
class HalfTrainConfig(DenoisingTrainConfig):
    task: Literal["half"]

    def model(self):
        return self.stored_as(HalfModelConfig)
'''
LEARNING = """
import dataclasses
from difflab.tasks.denoising.build import build_model, build_module

def build(config):
    module = build_module(config)
    module.halved = True
    return module
"""
SHAPED = """
from difflab.config.axes import INITIALISATIONS, POOLS, RESAMPLINGS, TIME_EMBEDDINGS

TIME_EMBEDDINGS.register("ramp", "mix_pack.shaping:ramp")
INITIALISATIONS.register("flat", "mix_pack.shaping:flat")
RESAMPLINGS.register("corner", "mix_pack.shaping:CORNER")
POOLS.register("first", "mix_pack.shaping:first")
"""
SHAPING = """
from dataclasses import dataclass
import torch
from torch import nn
from difflab.networks.registry import register
from difflab.networks.resample import UpSpec
from difflab.networks.resampling import Resampling

def ramp(time, channels):
    return time.float()[:, None] * torch.linspace(0, 1, channels, device=time.device) / 1000

def flat(module, last):
    nn.init.normal_(module.weight, std=0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)

@dataclass(frozen=True)
class CornerSpec:
    name: str = "down"
    checkpoint: bool = False
    reads: tuple = ()

@register(CornerSpec)
class Corner(nn.Module):
    def __init__(self, spec):
        super().__init__()

    def forward(self, h, emb, cond, context):
        return h[:, :, ::2, ::2]

CORNER = Resampling(lambda blocks, channels: CornerSpec(), lambda blocks, channels: UpSpec(channels))

@dataclass(frozen=True)
class FirstSpec:
    channels: int
    classes: int

@register(FirstSpec)
class First(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.out = nn.Linear(spec.channels, spec.classes)

    def forward(self, h, kept):
        return self.out(h[:, :, 0, 0])

def first(features):
    return FirstSpec(features.width, features.classes)
"""
HALF = """# @package _global_
defaults: [/diffusion: ddpm, /network: unet_small, /conditioning: none, /guidance: none, /sampler: ddim]
task: half
"""
SHAPE = (
    "network.time_embedding=ramp",
    "network.init=flat",
    "network.resample=corner",
)
DROPPED = (*CLASSES, "conditioning.class_label.drop_rate=0.1")
# An experiment chooses its own task.
SMALL = tuple(key for key in TRAINING if not key.startswith("experiment="))


def install_mix(packages: Packages, distribution: str = "mix-pack", version: str = "0.7") -> None:  # noqa: F811
    package = distribution.replace("-", "_")
    files = {
        "__init__.py": "".join(f"from {package} import {name}\n" for name in ("guided", "watched", "learnt", "shaped")),
        "guided.py": GUIDED,
        "guiding.py": GUIDING,
        "watched.py": WATCHED,
        "watching.py": WATCHING,
        "learnt.py": LEARNT,
        "learning.py": LEARNING,
        "shaped.py": SHAPED,
        "shaping.py": SHAPING,
    }
    conf = {
        "guidance/pull.yaml": "defaults: [pull_defaults]\n",
        "callbacks/tallied.yaml": "defaults: [default, tally_defaults@tally]\n",
        "logger/lined.yaml": "defaults: [csv, lines_defaults@lines]\n",
        "task/half.yaml": HALF,
    }
    content = {f"{package}/{path}": text.replace("mix_pack", package) for path, text in files.items()}
    packages.install(
        distribution, content | {f"{package}/conf/{path}": text for path, text in conf.items()}, version=version
    )


@pytest.fixture
def mix(packages: Packages) -> Packages:  # noqa: F811
    install_mix(packages)
    return packages


def trained(data: Path, name: str, *overrides: str) -> Path:
    done("train", *TRAINING, f"data.path={data}", f"name={name}", *overrides)
    (run,) = Path("runs").rglob(name)
    return run


def plugins_of(path: Path) -> dict[str, str]:
    content = yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())
    assert {name: record["version"] for name, record in content["plugins"].items()} == {"mix-pack": "0.7"}
    return content["plugins"]["mix-pack"]["kinds"]


def test_all_are_there(mix: Packages) -> None:
    assert "pull" in GUIDANCE
    assert "tally" in CALLBACKS
    assert {"lines", "hush"} <= set(LOGGERS)
    assert "half" in TASKS
    assert [axis[name].partition(":")[0] for axis, name in (
        (TIME_EMBEDDINGS, "ramp"), (INITIALISATIONS, "flat"), (RESAMPLINGS, "corner"), (POOLS, "first")
    )] == ["mix_pack.shaping"] * 4  # fmt: skip
    # Files that begin with all of a group have theirs too, and so no `+` is needed.
    assert contents("callbacks", "default")["tally"] is None  # pyrefly: ignore[unsupported-operation]
    assert contents("logger", "csv")["hush"] is False  # pyrefly: ignore[unsupported-operation]
    assert contents("guidance", "composed")["pull"] is None  # pyrefly: ignore[unsupported-operation]


def test_doctor_lists_them(mix: Packages) -> None:
    said = " ".join(difflab("doctor").out.split())
    assert "mix-pack 0.7" in said
    for choice in ("task=half", "guidance=pull", "callbacks=tally", "logger=lines", "resample=corner", "pool=first"):
        assert choice in said


def test_training_has_a_callback_and_a_logger_of_theirs(mix: Packages, tiny_shapes: Path) -> None:
    run = trained(
        tiny_shapes, "watched", "callbacks=tallied", "callbacks.sample_grid=null", "logger=lined",
        "callbacks.tally.file=count.txt", "trainer.log_every_steps=1", "logger.hush=true",
    )  # fmt: skip
    assert (run / "count.txt").read_text() == "3"
    rows = [json.loads(line) for line in (run / "lines.jsonl").read_text().splitlines()]
    assert [row["train/step"] for row in rows if "train/loss" in row] == [1, 2, 3]
    assert (run / "metrics.csv").is_file()
    assert plugins_of(run / "config.yaml") == {
        "callbacks.tally": "tally", "logger.lines": "lines", "logger.hush": "hush"
    }  # fmt: skip
    # What is watched is no part of the model.
    assert json.loads((run / "weights" / "config.json").read_text())["plugins"] == {}
    # A run that has all its steps makes up what is owed.
    (run / "count.txt").unlink()
    again = done(
        "train", *TRAINING, f"data.path={tiny_shapes}", "name=watched", "callbacks=tallied", "logger=lined",
        "callbacks.tally.file=count.txt", "callbacks.sample_grid=null",
    )  # fmt: skip
    assert "not everything was done there: Tally" in again.out + again.err
    assert (run / "count.txt").is_file()


def test_one_that_is_not_used_is_not_stored(mix: Packages, tiny_shapes: Path) -> None:
    run = trained(tiny_shapes, "plain")
    content = yaml.safe_load((run / "config.yaml").read_text())
    assert not {"tally", "lines", "hush"} & {*content["callbacks"], *content["logger"]}
    assert content["plugins"] == {}
    mix.uninstall_all()
    done("sample", f"run={run}", "n=2", "out=drawn", "sampler.steps=2", *ON_CPU)


def test_samples_are_guided_by_theirs(mix: Packages, tiny_shapes: Path) -> None:
    run = trained(
        tiny_shapes, "guided", *DROPPED, "guidance=pull", "guidance.scale=2",
        "callbacks.sample_grid={every_steps: 3, n: 4, columns: 2, batch_size: 4}",
    )  # fmt: skip
    assert list((run / "samples").glob("*.png")), "the pictures of training are guided by it"
    assert plugins_of(run / "config.yaml") == {"guidance": "pull"}
    drawing = (f"run={run}", "n=2", "png=true", "npz=false", "sampler.steps=3", *ON_CPU)
    for name, overrides in {
        "own": [],
        "ours": ["guidance=classifier_free", "guidance.scale=2", "guidance.static_limit=1.25"],
        "one": ["guidance.scale=1"],
        "composed": ["guidance=composed", "guidance.classifier=null", "guidance.static_limit=1.25",
                     "guidance.classifier_free=null", "guidance.pull={scale: 2}"],
    }.items():  # fmt: skip
        done("sample", *drawing, f"out={name}", *overrides)
    picture = {name: (Path(name) / "000000.png").read_bytes() for name in ("own", "ours", "one", "composed")}
    assert picture["own"] == picture["ours"] == picture["composed"]
    assert picture["one"] != picture["own"]
    told = mistake("sample", *drawing, "out=less", "guidance.scale=-1")
    assert told.endswith("guidance.scale=-1: input should be greater than or equal to 0")
    assert "did you mean 'guidance.scale'?" in difflab("sample", *drawing, "out=mis", "guidance.scael=2").err


def test_a_scale_of_theirs_is_swept_and_recorded(mix: Packages, tiny_shapes: Path) -> None:
    run = trained(tiny_shapes, "swept", *DROPPED)
    done(
        "evaluate", f"run={run}", "guidance=pull", "guidance.scale=1,2", "n=4", "batch_size=4", "metrics=shapes",
        "~metrics.kid", "logger=lined", "sampler.steps=2", *ON_CPU,
    )  # fmt: skip
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    scales = [one["protocol"]["sampling"]["guidance"]["scale"] for one in records]
    assert sorted(set(scales)) == [1.0, 2.0]
    assert {one["protocol"]["sampling"]["guidance"]["kind"] for one in records} == {"pull"}
    assert len(list(run.rglob("lines.jsonl"))) == 2


def test_a_model_without_a_null_condition_is_refused(mix: Packages, own_run: Path) -> None:
    told = mistake("sample", f"run={own_run}", "n=2", "out=drawn", "guidance=pull", "guidance.scale=2", *ON_CPU)
    assert "this model is unconditional" in told


def test_a_task_of_theirs_trains_and_draws(mix: Packages, tiny_shapes: Path) -> None:
    done("train", "task=half", *SMALL, f"data.path={tiny_shapes}", "name=halved")
    (run,) = Path("runs").rglob("halved")
    assert plugins_of(run / "config.yaml")["task"] == "half"
    assert plugins_of(run / "weights" / "config.json") == {"task": "half"}
    done("sample", f"run={run}", "n=2", "out=drawn", "sampler.steps=2", *ON_CPU)
    done("weights", "export", run, "--out", "export")
    done("sample", "run=export", "n=2", "out=again", "sampler.steps=2", *ON_CPU)
    assert "(known: autoencoder, classifier, contrastive, denoising, half, noisy_classifier)" in mistake(
        "train", *SMALL, "task=nothing"
    )
    mix.uninstall_all()
    for place in (run, Path("export"), run / "checkpoints" / "last.ckpt"):
        told = mistake("sample", f"run={place}", "n=2", "out=third", *ON_CPU)
        assert "task='half' comes with mix-pack 0.7, which is not installed: install it" in told


def test_parts_of_a_network_of_theirs_train_and_draw(mix: Packages, tiny_shapes: Path) -> None:
    run = trained(tiny_shapes, "shaped", *SHAPE)
    named = {"network.time_embedding": "ramp", "network.init": "flat", "network.resample": "corner"}
    assert plugins_of(run / "weights" / "config.json") == named
    done("sample", f"run={run}", "n=2", "out=drawn", "sampler.steps=2", *ON_CPU)
    assert "resample=corner" in mistake("weights", "export", run, "--layout", "diffusers", "--out", "theirs")
    assert "network.resample='none': input should be 'asymmetric_conv', " in mistake(
        "train", *TRAINING, f"data.path={tiny_shapes}", "network.resample=none", "name=x"
    )


def test_a_pool_of_theirs_tells_classes(mix: Packages, tiny_shapes: Path) -> None:
    small = [key for key in TRAINING if not key.startswith(("sampler", "guidance", "experiment", "diffusion="))]
    plain = ("network.attention_resolutions=[]", "network.middle_attention=false")
    done(
        "train", "experiment=adm/shapes32_classifier", *small, f"data.path={tiny_shapes}", "network.pool=first", *plain,
        "network.attention_head_channels=null", "name=judge",
    )  # fmt: skip
    (run,) = Path("runs").rglob("judge")
    assert plugins_of(run / "config.yaml") == {"network.pool": "first"}


STORED = {
    "guidance=pull": "guidance.kind='pull'",
    "guidance=composed guidance.classifier=null guidance.pull={}": "guidance.pull",
    "callbacks=tallied": "callbacks.tally",
    "logger=lined": "logger.lines",
    "logger.hush=true": "logger.hush",
    "network.time_embedding=ramp": "network.time_embedding='ramp'",
    "network.init=flat": "network.init='flat'",
    "network.resample=corner": "network.resample='corner'",
}


@pytest.mark.parametrize("overrides", STORED)
def test_where_it_is_missing_it_is_named(mix: Packages, overrides: str) -> None:
    config = compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32", *overrides.split()])[0]
    assert validate(TrainConfig, config.plain()) == config
    stored, model = config.plain(), config.model().plain()
    mix.uninstall_all()
    line = f"{STORED[overrides]} comes with mix-pack 0.7, which is not installed: install it"
    with pytest.raises(UserError) as told:
        validate(TrainConfig, stored)
    assert str(told.value) == line
    if not overrides.startswith(("callbacks", "logger")):
        with pytest.raises(UserError) as told:
            validate(ModelConfig, model)
        assert str(told.value) == line


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (GUIDED, "guidance: two choices are named pull"),
        (WATCHED, "callbacks: two choices are named tally"),
        (WATCHED.replace('"tally"', '"tally2"'), "logger: two choices are named lines"),
        (LEARNT, "task: two choices are named half"),
        (SHAPED.replace("mix_pack", "again_pack"), "time_embedding: two choices are named ramp"),
        ('from difflab.config.axes import POOLS\nPOOLS.register("first", "again:first")', "pool: two choices are"),
        (WATCHED.replace('"tally"', '"ema"'), "callbacks: two choices are named ema, one from difflab.callbacks.conf"),
        (LEARNT.replace('"half"', '"denoising"'), "task: two choices are named denoising, one from difflab.tasks"),
    ],
)
def test_two_by_one_name_are_refused(mix: Packages, content: str, what: str) -> None:
    mix.install("again-pack", {"again_pack.py": content})
    with pytest.raises(UserError, match=what):
        compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32"])
