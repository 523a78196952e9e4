"""The guidance group."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from difflab.config.groups import choices_of, contents
from difflab.config.guidance import GuidanceConfig
from difflab.diffusion.guidance.config import (
    ClassifierFreeOptions,
    ClassifierOptions,
    ComposedGuidance,
    NoGuidance,
    ReferenceConfig,
)

NAMES = ("autoguidance", "classifier", "classifier_free", "composed", "none")
ANY_KIND: TypeAdapter[GuidanceConfig] = TypeAdapter(GuidanceConfig)


def make(kind: str, **options: Any) -> GuidanceConfig:
    return ANY_KIND.validate_python({"kind": kind, **options})


def without_missing(node: Any) -> Any:
    """The YAML with a name where a file says ??? (a run that only the user can give)."""
    if isinstance(node, dict):
        return {key: without_missing(value) for key, value in node.items()}
    return "runs/somewhere" if node == "???" else node


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_shows_all_its_options(name: str) -> None:
    data = without_missing(contents("guidance", name))
    config = ANY_KIND.validate_python(data)
    assert config.kind == {"autoguidance": "classifier_free"}.get(name, name)
    assert set(data) == set(type(config).model_fields)
    sections = {"classifier_free": ClassifierFreeOptions, "classifier": ClassifierOptions, "reference": ReferenceConfig}
    for key, model in sections.items():
        if data.get(key) is not None:
            assert set(data[key]) == set(model.model_fields)
    # What a run stores is what it was.
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert ANY_KIND.validate_python(stored) == config


def test_every_choice_is_looked_at() -> None:
    assert tuple(choices_of("guidance")) == NAMES


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
    assert ANY_KIND.validate_python(older) == NoGuidance(kind="none", threshold="static")
    assert ANY_KIND.validate_python(older).one_batch


def test_every_kind_says_what_it_asks() -> None:
    none = make("none")
    assert (none.guides, none.needs_null, none.calls, none.acts) == ({}, False, 1, False)
    free = make("classifier_free", scale=3.0)
    assert (free.guides, free.needs_null, free.calls, free.acts) == ({}, True, 2, True)
    for options in ({}, {"scale": 1.0}, {"paper_w": -1.0}, {"scale": 3.0, "interval": [0.1, 1.0]}):
        assert make("classifier_free", **options).calls == 1
    led = make(
        "classifier_free", scale=3.0, reference={"run": "weak", "weights": "raw", "conditioning": "unconditional"}
    )
    assert (led.needs_null, led.calls) == (False, 1)
    (named,) = led.guides.items()
    assert (named[0], named[1].run, named[1].weights, named[1].options) == ("reference", "weak", "raw", led.reference)
    classifier = make("classifier", run="runs/c")
    assert [(name, guide.run) for name, guide in classifier.guides.items()] == [("classifier", "runs/c")]
    assert (classifier.needs_null, classifier.calls) == (False, 1)


def test_composed_guidance_asks_what_its_parts_ask() -> None:
    both = make("composed", classifier_free={"scale": 3.0}, classifier={"run": "runs/c", "scale": 2.0})
    assert isinstance(both, ComposedGuidance)
    assert both.parts == {
        "classifier_free": ClassifierFreeOptions(scale=3.0),
        "classifier": ClassifierOptions(run="runs/c", scale=2.0),
    }
    assert (list(both.guides), both.needs_null, both.calls) == (["classifier"], True, 2)
    one = make("composed", classifier={"run": "runs/c"})
    assert isinstance(one, ComposedGuidance)
    assert (list(one.parts), one.needs_null, one.calls) == (["classifier"], False, 1)
    assert one == ComposedGuidance(kind="composed", classifier={"run": "runs/c"})
    assert one.recorded()["classifier_free"] is None


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1.0), ({"scale": 3.0}, 3.0), ({"paper_w": 0.5}, 1.5), ({"paper_w": -1.0}, 0.0), ({"scale": 0.0}, 0.0)],
)
def test_the_scale_in_both_conventions(options: dict[str, Any], scale: float) -> None:
    assert ClassifierFreeOptions(**options).effective_scale == scale


@pytest.mark.parametrize("options", [{}, {"scale": 1.0}, {"paper_w": 0.0}])
def test_neutral_scales_are_allowed_without_guidance(options: dict[str, Any]) -> None:
    assert not make("none", **options).acts


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
        ("none", {"threshold": "clip"}, "Input should be 'auto', 'none', 'static' or 'dynamic'"),
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
        ("classifier_free", {"reference": {"run": "r", "conditioning": "null"}}, "'conditional' or 'unconditional'"),
        ("classifier_free", {"run": "runs/c"}, "Extra inputs are not permitted"),
        ("classifier", {}, "Field required"),
        ("classifier", {"run": "runs/c", "scale": -1.0}, "greater than or equal to 0"),
        ("classifier", {"run": "runs/c", "gradient_at": "mu"}, "'x_t' or 'mean'"),
        ("classifier", {"run": "runs/c", "interval": [2.0, 1.0]}, "0 <= low < high"),
        ("classifier", {"run": "runs/c", "interval": [0.0]}, "at least 2 items"),
        ("classifier", {"run": "runs/c", "paper_w": 1.0}, "Extra inputs are not permitted"),
        ("composed", {}, "kind=composed needs at least one of .*: give one of them"),
        ("composed", {"scale": 3.0}, "Extra inputs are not permitted"),
        ("composed", {"classifier_free": {"scale": 1.0, "paper_w": 0.0}}, "give one of them"),
        ("clip", {}, "does not match any of the expected tags"),
    ],
)
def test_mistakes_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(kind, **options)
