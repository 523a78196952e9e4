"""Metrics of an installed package: of the samples alone, and a distance to a data set in features of its own."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from command_line import run_difflab
from difflab.commands import sweep_processes
from difflab.commands.sweep_processes import Ended, Job
from difflab.metrics.protocol import Result
from plugin_packages import Packages, packages  # noqa: F401 - a fixture
from tiny_runs import ON_CPU, TRAINING, difflab, done, mistake

CONFIG = '''
from typing import ClassVar, Literal
from difflab.config.axes import METRICS
from difflab.config.metrics import Directions, MetricBase, ReferenceBase

@METRICS.register("light_pack.measuring:Brightness")
class BrightnessConfig(MetricBase):
    """Mean brightness of the samples, in [0, 1]."""

    larger_is_better: ClassVar[Directions] = {"brightness": True}

    kind: Literal["brightness"]
    gain: float = 1.0
    """What it is multiplied with."""

@METRICS.register("light_pack.measuring:TintDistance")
class TintConfig(ReferenceBase):
    """Distance between the mean colour of the samples and that of the data."""

    larger_is_better: ClassVar[Directions] = {"tint": False}

    kind: Literal["tint"]
'''
MEASURING = """
import torch
from difflab.errors import UserError
from difflab.metrics.base import Metric, ScoreMetric
from difflab.metrics.extractors.base import FeatureExtractor, Features
from difflab.metrics.protocol import ExtractorRecord

class Brightness(ScoreMetric):
    def score(self, images, pictures):
        return self.config.gain * images.double().mean(dim=(1, 2, 3)) / 255

    def parameters(self, pictures):
        return {"gain": self.config.gain}

class Tint(FeatureExtractor):
    record = ExtractorRecord(
        name="tint", weights_sha256="0" * 64, feature_dim=3, layer="mean", size=0, resize="none"
    )

    def __init__(self, device):
        super().__init__(torch.nn.Identity(), device)

    def _features(self, images):
        return Features(images.float().mean(dim=(2, 3)) / 255, None)

class TintDistance(Metric):
    keeps = frozenset({"pool"})

    def extractor(self, device):
        return Tint(device)

    def check_count(self, n):
        if n < 3:
            raise UserError(f"{self.key} needs at least 3 samples, not n={n}")

    def results(self, samples):
        ours, theirs = samples.compared_features()
        return [samples.result("tint", float((ours.pool.mean(dim=0) - theirs.mean(dim=0)).norm()))]
"""
LIGHT = ("metrics=light",)
NAMES = ["brightness@4", "tint@4"]


@pytest.fixture
def light(packages: Packages) -> Packages:  # noqa: F811
    packages.install(
        "light-pack",
        {
            "light_pack/__init__.py": CONFIG,
            "light_pack/measuring.py": MEASURING,
            "light_pack/conf/metrics/light.yaml": "defaults: [brightness_defaults@brightness, tint_defaults@tint]\n",
        },
        version="1.5",
    )
    return packages


def records(path: Path) -> list[Result]:
    return [Result.from_json(line) for line in path.read_text().splitlines()]


def test_samples_are_evaluated_with_them(light: Packages, own_run: Path) -> None:
    done(
        "evaluate", f"run={own_run}", "n=4", "batch_size=3", "logger=none", *LIGHT, "metrics.brightness.gain=2", *ON_CPU
    )
    brightness, tint = found = records(own_run / "evaluations.jsonl")
    assert [one.name for one in found] == NAMES
    assert brightness.protocol.parameters == {"gain": 2.0}
    assert brightness.protocol.extractor is brightness.protocol.reference is None
    assert brightness.spread is not None
    assert tint.protocol.extractor is not None
    assert tint.protocol.extractor.name == "tint"
    assert tint.protocol.reference is not None
    assert tint.protocol.reference.n == 96
    assert all(one.protocol.versions["light-pack"] == "1.5" for one in found)
    assert mistake("evaluate", f"run={own_run}", "n=2", "logger=none", *LIGHT, *ON_CPU).endswith(
        "metrics.tint needs at least 3 samples, not n=2"
    )


def test_given_pictures_are_evaluated_with_them(light: Packages, tmp_path: Path, tiny_shapes: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, level in enumerate((0, 51, 102, 255)):
        Image.fromarray(np.full((16, 16, 3), level, np.uint8)).save(folder / f"{number}.png")
    done(
        "evaluate", f"samples={folder}", "metrics=light", "data=shapes32", f"data.path={tiny_shapes}",
        "data.image_size=16", "logger=none", "out=judged", "accelerator=cpu",
    )  # fmt: skip
    brightness, _ = records(Path("judged/evaluations.jsonl"))
    assert brightness.value == pytest.approx(0.4)
    assert brightness.spread == pytest.approx(np.std([0, 0.2, 0.4, 1], ddof=1) / 2)


def test_a_run_is_evaluated_with_them_while_it_trains(light: Packages, tiny_shapes: Path) -> None:
    done(
        "train", *TRAINING, f"data.path={tiny_shapes}", "name=lit", *LIGHT, "callbacks=evaluation",
        "callbacks.evaluation.n=4", "callbacks.evaluation.batch_size=4", "callbacks.evaluation.every_steps=3",
    )  # fmt: skip
    (run,) = Path("runs").rglob("lit")
    assert [json.loads(line)["name"] for line in (run / "evaluations.jsonl").read_text().splitlines()] == NAMES
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["plugins"] == {
        "light-pack": {"version": "1.5", "kinds": {"metrics.brightness": "brightness", "metrics.tint": "tint"}}
    }
    light.uninstall_all()
    told = mistake("sample", f"run={run}", "n=2", "out=drawn", *ON_CPU)
    assert "metrics.brightness.kind='brightness' comes with light-pack 1.5, which is not installed: install it" in told


def test_a_sweep_has_them_in_its_table_and_plot(
    light: Packages, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_processes, "run_jobs", in_this_process)
    sweep = Path("light.yaml")
    parameters = {"run": {"value": str(own_run)}, "metrics": {"value": "light"}, "n": {"value": 4}}
    content = {
        "program": "difflab",
        "name": "light",
        "method": "grid",
        "metric": {"name": "eval/brightness@4", "goal": "maximize"},
        "parameters": {**parameters, "logger": {"value": "none"}, "sampler.steps": {"values": [2, 3]}},
        "command": ["${env}", "${program}", "evaluate", "${args_no_hyphens}"],
    }
    sweep.write_text(yaml.safe_dump(content))
    done("sweep", "run", sweep, *ON_CPU)
    (table,) = Path("runs/sweeps").rglob("table.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["eval/brightness@4"] for row in rows}) == 2
    assert all(float(row["eval/tint@4"]) > 0 for row in rows)
    assert (table.parent / "plot.svg").is_file()


def in_this_process(
    jobs: Sequence[Job], at_once: int, lock: int, started: Callable[[int], None], ended: Callable[[int, Ended], None]
) -> None:
    for number, job in enumerate(jobs):
        started(number)
        ended(number, Ended(run_difflab(job.arguments, Path.cwd()).status, 1.0))


def test_a_search_knows_which_way_they_get_better(light: Packages, own_run: Path) -> None:
    asked = ("n=4", "batch_size=4", "sampler=ddim", "sampler.steps=3", "logger=none", *ON_CPU, *LIGHT, "candidates=2")
    done("schedule", f"run={own_run}", *asked, "metric=brightness")
    (found,) = own_run.glob("schedules/*/schedule.yaml")
    assert yaml.safe_load(found.read_text())["goal"] == "maximize"
    shutil.rmtree(own_run / "schedules")
    done("schedule", f"run={own_run}", *asked, "metric=tint")
    (found,) = own_run.glob("schedules/*/schedule.yaml")
    assert yaml.safe_load(found.read_text())["goal"] == "minimize"
    told = mistake("schedule", f"run={own_run}", *asked, "metrics=shapes", "metric=tint")
    assert "metric=tint is none of metrics= (fd, kid, oracle)" in told


def test_a_misspelt_key_of_theirs_is_named(light: Packages, own_run: Path) -> None:
    ended = difflab("evaluate", f"run={own_run}", *LIGHT, "metrics.brightness.gian=2")
    assert "did you mean 'metrics.brightness.gain'?" in ended.err
