"""The guidance group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from difflab.config.guidance import (
    ClassifierFreeGuidance,
    ClassifierFreeOptions,
    ClassifierGuidance,
    ClassifierOptions,
    ComposedGuidance,
    GuidanceConfig,
    NoGuidance,
    ReferenceConfig,
)

FILES = sorted((Path(__file__).parents[2] / "conf" / "guidance").glob("*.yaml"))
ANY_KIND: TypeAdapter[GuidanceConfig] = TypeAdapter(GuidanceConfig)


def make(kind: str, **options: Any) -> GuidanceConfig:
    return ANY_KIND.validate_python({"kind": kind, **options})


def without_missing(node: Any) -> Any:
    """The YAML with a name where a file says ??? (a run that only the user can give)."""
    if isinstance(node, dict):
        return {key: without_missing(value) for key, value in node.items()}
    return "runs/somewhere" if node == "???" else node


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_choice_shows_all_its_options(path: Path) -> None:
    data = without_missing(yaml.safe_load(path.read_text()))
    config = ANY_KIND.validate_python(data)
    assert config.kind == {"autoguidance": "classifier_free"}.get(path.stem, path.stem)
    assert set(data) == set(type(config).model_fields)
    sections = {"classifier_free": ClassifierFreeOptions, "classifier": ClassifierOptions, "reference": ReferenceConfig}
    for name, model in sections.items():
        if data.get(name) is not None:
            assert set(data[name]) == set(model.model_fields)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_run_stores_is_what_it_was(path: Path) -> None:
    config = ANY_KIND.validate_python(without_missing(yaml.safe_load(path.read_text())))
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert ANY_KIND.validate_python(stored) == config


def test_what_older_runs_stored_is_understood() -> None:
    older = {
        "kind": "none",
        "scale": None,
        "paper_w": None,
        "threshold": "static",
        "static_limit": 1.0,
        "dynamic_percentile": 0.995,
        "dynamic_maximum": None,
        "rederive_eps": True,
    }
    assert ANY_KIND.validate_python(older) == NoGuidance(kind="none")
    assert ANY_KIND.validate_python(older).one_batch


def test_every_kind_answers_for_both_sorts_of_guidance() -> None:
    none = make("none")
    assert (none.classifier_free_options(), none.classifier_options()) == (None, None)
    free = make("classifier_free", scale=3.0)
    assert (free.classifier_free_options(), free.classifier_options()) == (free, None)
    classifier = make("classifier", run="runs/c")
    assert (classifier.classifier_free_options(), classifier.classifier_options()) == (None, classifier)
    both = make("composed", classifier_free={"scale": 3.0}, classifier={"run": "runs/c", "scale": 2.0})
    assert both.classifier_free_options() == ClassifierFreeOptions(scale=3.0)
    assert both.classifier_options() == ClassifierOptions(run="runs/c", scale=2.0)
    one = make("composed", classifier={"run": "runs/c"})
    assert one.classifier_free_options() is None
    kinds = (NoGuidance, ClassifierFreeGuidance, ClassifierGuidance, ComposedGuidance)
    assert tuple(type(config) for config in (none, free, classifier, both)) == kinds


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1.0), ({"scale": 3.0}, 3.0), ({"paper_w": 0.5}, 1.5), ({"paper_w": -1.0}, 0.0), ({"scale": 0.0}, 0.0)],
)
def test_the_scale_in_both_conventions(options: dict[str, Any], scale: float) -> None:
    assert ClassifierFreeOptions(**options).effective_scale == scale


@pytest.mark.parametrize("options", [{}, {"scale": 1.0}, {"paper_w": 0.0}])
def test_neutral_scales_are_allowed_without_guidance(options: dict[str, Any]) -> None:
    assert make("none", **options).classifier_free_options() is None


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("none", {"scale": 1.0, "paper_w": 0.0}, r"scale = 1 \+ paper_w\): give one of them"),
        (
            "none",
            {"scale": 3.0},
            r"kind=none cannot apply a scale of 3: choose guidance=classifier_free, or guidance=cl",
        ),
        ("none", {"paper_w": 0.5}, "kind=none cannot apply a scale of 1.5"),
        ("none", {"threshold": "clip"}, "Input should be 'none', 'static' or 'dynamic'"),
        ("none", {"dynamic_percentile": 0.0}, "greater than 0"),
        ("none", {"dynamic_maximum": 0.5}, "greater than or equal to 1"),
        ("none", {"interval": [0.0, 1.0]}, "Extra inputs are not permitted"),
        ("classifier_free", {"scale": 1.0, "paper_w": 0.0}, "give one of them"),
        ("classifier_free", {"scale": float("nan")}, "finite number"),
        (
            "classifier_free",
            {"interval": [2.0, 1.0]},
            r"interval=\[2.0, 1.0\] must be \[low, high\] with 0 <= low < high",
        ),
        ("classifier_free", {"interval": [-1.0, 1.0]}, "0 <= low < high"),
        ("classifier_free", {"interval": [1.0, 1.0]}, "0 <= low < high"),
        ("classifier_free", {"interval": [1.0]}, "at least 2 items"),
        ("classifier_free", {"interval": [0.0, float("inf")]}, "finite number"),
        ("classifier_free", {"rescale": 1.5}, "less than or equal to 1"),
        ("classifier_free", {"channels": 0}, "greater than or equal to 1"),
        ("classifier_free", {"reference": {}}, "Field required"),
        ("classifier_free", {"reference": {"run": "r", "told": "null"}}, "'condition' or 'nothing'"),
        ("classifier_free", {"run": "runs/c"}, "Extra inputs are not permitted"),
        ("classifier", {}, "Field required"),
        ("classifier", {"run": "runs/c", "scale": -1.0}, "greater than or equal to 0"),
        ("classifier", {"run": "runs/c", "gradient_at": "mu"}, "'x_t' or 'mean'"),
        ("classifier", {"run": "runs/c", "interval": [2.0, 1.0]}, "0 <= low < high"),
        ("classifier", {"run": "runs/c", "interval": [0.0]}, "at least 2 items"),
        ("classifier", {"run": "runs/c", "paper_w": 1.0}, "Extra inputs are not permitted"),
        ("composed", {}, "guides nothing: give one of them"),
        ("composed", {"scale": 3.0}, "Extra inputs are not permitted"),
        ("composed", {"classifier_free": {"scale": 1.0, "paper_w": 0.0}}, "give one of them"),
        ("clip", {}, "does not match any of the expected tags"),
    ],
)
def test_mistakes_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(kind, **options)
