"""Class accuracy: exact numbers of a judge that is known, classes matched by name, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.interop.native import save_export
from difflab.metrics.base import SampleFacts
from difflab.metrics.config import ClassesConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.protocol import Result, compare
from difflab.pipelines import class_accuracy
from difflab.pipelines.class_accuracy import ClassAccuracy
from difflab.tasks.build import build_model

NAMES = ["cat", "house", "tree"]
SMALL = (
    "experiment=classifier/shapes32",
    "data.path=none",
    "data.image_size=8",
    "network.base_channels=8",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.patch_size=1",
    "network.attention_resolutions=[]",
    "network.attention_head_channels=8",
    "network.norm_groups=4",
)


def stored(folder: Path, *overrides: str, names: list[str] | None = NAMES, seed: int = 0) -> str:
    """An exported classifier of 8 px grey images."""
    asked = [*SMALL, "data.channels=1", f"data.classes={len(names or NAMES)}", *overrides]
    config, _ = compose_and_validate("train", TrainConfig, asked, checking=True)
    model = config.model().model_copy(update={"class_names": names})
    torch.manual_seed(seed)
    save_export(folder, build_model(model).as_module().state_dict(), model.plain())
    return str(folder)


class ByLevel(nn.Module):
    """Tells the class by how bright an image is: class k of level 100 k, with logit 2."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        level = ((x.mean(dim=(1, 2, 3)) + 1) * 127.5 / 100).round().long()
        return 2.0 * nn.functional.one_hot(level, 3).float()


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A classifier that knows."""
    loaded = class_accuracy.load_stored

    def known(*arguments: Any) -> Any:
        model, found = loaded(*arguments)
        object.__setattr__(model, "network", ByLevel())
        return model, found

    monkeypatch.setattr(class_accuracy, "load_stored", known)
    class_accuracy._loaded.cache_clear()
    yield stored(tmp_path / "judge")
    class_accuracy._loaded.cache_clear()


def images(*classes: int) -> Tensor:
    """Such as show these classes to the judge."""
    return torch.stack([torch.full((1, 8, 8), 100 * one, dtype=torch.uint8) for one in classes])


def judged(run: str, shown: Tensor, asked: list[int], names: list[str] | None = NAMES, **options: Any) -> list[Result]:
    evaluator = Evaluator({"classes": ClassesConfig(classifier=run)}, n=len(shown), class_names=names, **options)
    for rows in (range(len(shown) // 2, len(shown)), range(len(shown) // 2)):
        evaluator.update(shown[list(rows)], torch.tensor(rows), label=torch.tensor(asked)[list(rows)])
    return evaluator.compute()


def test_the_share_that_shows_its_class_and_its_probability(judge: str) -> None:
    accuracy, confidence = judged(judge, images(0, 1, 2, 1, 1), asked=[0, 1, 1, 0, 1])
    assert [accuracy.name, confidence.name] == ["class-accuracy@5", "class-confidence@5"]
    assert accuracy.value == pytest.approx(3 / 5)
    assert accuracy.spread == pytest.approx(np.std([1, 1, 0, 0, 1], ddof=1) / math.sqrt(5))
    right, wrong = math.exp(2) / (math.exp(2) + 2), 1 / (math.exp(2) + 2)
    assert confidence.value == pytest.approx((3 * right + 2 * wrong) / 5)
    assert confidence.spread == pytest.approx(np.std([right, right, wrong, wrong, right], ddof=1) / math.sqrt(5))
    by_class: Any = accuracy.details["by_class"]
    assert list(by_class) == ["cat", "house"]
    assert (by_class["cat"]["n"], by_class["cat"]["accuracy"], by_class["cat"]["mostly_taken_for"]) == (2, 0.5, "house")
    assert by_class["house"]["accuracy"] == pytest.approx(2 / 3)
    assert by_class["house"]["mostly_taken_for"] == "tree"
    assert by_class["cat"]["confidence"] == pytest.approx((right + wrong) / 2)


def test_one_sample_has_no_standard_error(judge: str) -> None:
    assert [result.spread for result in judged(judge, images(1), asked=[1])] == [None, None]


def test_classes_are_matched_by_name(judge: str) -> None:
    (accuracy, _) = judged(judge, images(2, 0, 1), asked=[0, 1, 1], names=["tree", "cat"])
    assert accuracy.value == pytest.approx(2 / 3)
    assert accuracy.protocol.parameters["class_names"] == ["tree", "cat"]
    assert list(accuracy.details["by_class"]) == ["tree", "cat"]


def test_classes_without_names_are_matched_by_number(judge: str) -> None:
    (accuracy, _) = judged(judge, images(2, 0, 1), asked=[2, 0, 0], names=None)
    assert accuracy.value == pytest.approx(2 / 3)
    assert list(accuracy.details["by_class"]) == ["0", "2"]
    with pytest.raises(UserError, match=r"the requested class 3 is outside of the 3 classes 0\.\.2"):
        judged(judge, images(2, 0), asked=[3, 0], names=None)


def test_the_lowest_classes_are_told(judge: str) -> None:
    results = judged(judge, images(0, 1, 2, 1), asked=[0, 1, 1, 0])
    metric = ClassAccuracy(ClassesConfig(classifier=judge), "classes")
    assert metric.in_words(results) == ["class-accuracy@4 by class, lowest first: cat 0.5, house 0.5"]


def test_the_record_names_the_judge_by_its_weights(tmp_path: Path, judge: str) -> None:
    first, _ = judged(judge, images(0, 1), asked=[0, 1])
    # ByLevel has no weights, so these are the real ones.
    ours = stored(tmp_path / "a"), stored(tmp_path / "b"), stored(tmp_path / "c", seed=1)
    records = [ClassAccuracy(ClassesConfig(classifier=run), "m").extractor(torch.device("cpu")).record for run in ours]
    assert first.protocol.extractor is not None
    assert (first.protocol.extractor.name, first.protocol.extractor.feature_dim) == ("classifier", 3)
    assert records[0] == records[1]
    assert first.protocol.parameters["classifier"]["run"] == judge
    moved = first.protocol.model_copy(update={"parameters": {**first.protocol.parameters, "classifier": {"run": "x"}}})
    assert moved.hash == first.protocol.hash, "where it lies changes no number"


def test_numbers_of_two_judges_do_not_compare(tmp_path: Path) -> None:
    ours, theirs = (judged(stored(tmp_path / str(s), seed=s), images(0, 1), asked=[0, 1])[0] for s in (0, 1))
    with pytest.raises(UserError, match=r"extractor\.weights_sha256"):
        compare(ours, theirs)
    assert compare(ours, judged(stored(tmp_path / "again"), images(0, 1), asked=[0, 1])[0]) == 0


def test_a_judge_that_was_trained_on_is_loaded_anew(tmp_path: Path) -> None:
    before = judged(stored(tmp_path / "one"), images(0, 1), asked=[0, 1])[0]
    after = judged(stored(tmp_path / "one", seed=5), images(0, 1), asked=[0, 1])[0]
    assert before.protocol.extractor != after.protocol.extractor


def test_the_last_validation_of_a_run_is_recorded(tmp_path: Path) -> None:
    from difflab.pipelines.stored import Stored, find_stored

    export = find_stored(stored(tmp_path / "run"))
    (tmp_path / "run" / "metrics.csv").write_text("train/step,val/loss,val/top1\n5,1,0.5\n6,,\n7,0.5,0.75\n8,\0")
    assert class_accuracy._validated(export) is None, "an export knows nothing of it"
    assert (
        class_accuracy._validated(Stored(tmp_path / "run", export.config, export.weights, "raw", tmp_path / "run"))
        == 0.75
    )


FACTS = SampleFacts((1, 8, 8), 3, NAMES)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (SampleFacts((1, 16, 16), 3, NAMES), "takes 1x8x8 images, the samples are 1x16x16: train one on the data"),
        (SampleFacts((3, 8, 8), 3, NAMES), "takes 1x8x8 images, the samples are 3x8x8"),
        (SampleFacts((1, 8, 8), 3, ["cat", "dog", "tree"]), "has the classes cat, house, tree, not the samples' dog"),
        (SampleFacts((1, 8, 8), highest=3), "metrics.m: the requested class 3 is outside of the 3 classes 0..2"),
        (SampleFacts((1, 8, 8), 2), "has 3 classes, but the samples have 2"),
        (SampleFacts((1, 8, 8), unlabelled="the model has none"), "metrics.m needs the requested class of each sample"),
    ],
)
def test_samples_of_which_it_says_nothing_are_refused(tmp_path: Path, facts: SampleFacts, line: str) -> None:
    metric = ClassAccuracy(ClassesConfig(classifier=stored(tmp_path / "judge")), "m")
    metric.check_samples(FACTS)
    metric.check_samples(SampleFacts((1, 8, 8), None, ["tree"]))
    metric.check_samples(SampleFacts((1, 8, 8)))
    metric.check_samples(SampleFacts((1, 8, 8), highest=2))
    with pytest.raises(UserError) as error:
        metric.check_samples(facts)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["experiment=adm/shapes32_classifier"],
            "is a noisy classifier, made for noised images, and samples are clean",
        ),
        (
            ["experiment=ddpm/shapes32"],
            "is a diffusion model, not a classifier: give a run of task=classifier",
        ),
    ],
)
def test_a_run_of_something_else_is_refused(tmp_path: Path, overrides: list[str], line: str) -> None:
    config, _ = compose_and_validate("train", TrainConfig, [*overrides, "data.path=none"], checking=True)
    save_export(tmp_path / "other", {"network.x": torch.zeros(1)}, config.model().plain())
    with pytest.raises(UserError, match=line):
        ClassAccuracy(ClassesConfig(classifier=str(tmp_path / "other")), "classes").check_samples(FACTS)


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^classifier=nowhere does not exist: give a run directory"):
        ClassAccuracy(ClassesConfig(classifier="nowhere"), "classes").check_samples(FACTS)


def test_samples_of_which_some_have_no_class_are_refused(judge: str) -> None:
    evaluator = Evaluator({"classes": ClassesConfig(classifier=judge)}, n=2, class_names=NAMES)
    evaluator.update(images(0, 1), torch.arange(2))
    with pytest.raises(UserError, match=r"^metrics\.classes: the requested class of each sample is not known"):
        evaluator.compute()
