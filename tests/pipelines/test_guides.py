from __future__ import annotations

import numpy as np
import pytest
import torch

from difflab.config.guidance import GuidanceBase
from difflab.config.model import ModelConfig
from difflab.config.request import RequestConfig
from difflab.diffusion.build import build_process
from difflab.diffusion.guidance.config import (
    ClassifierFreeGuidance,
    ClassifierFreeOptions,
    ClassifierGuidance,
    ComposedGuidance,
    NoGuidance,
    ReferenceConfig,
)
from difflab.diffusion.process import GaussianProcess
from difflab.diffusion.samplers.config import AncestralConfig, DDIMConfig
from difflab.errors import UserError
from difflab.networks.config import UNetEncoderConfig
from difflab.pipelines import build
from difflab.pipelines.diffusing import DiffusingStage
from difflab.pipelines.guides import Guides, guide_of, load_guides
from difflab.tasks.build import Model, build_model
from difflab.tasks.noisy_classifier.config import NoisyClassifierModelConfig
from golden_fixtures import draw
from pipelines.conftest import CLASSES, configuration

DROPPED = (*CLASSES, "conditioning.class_label.drop_rate=0.1")


def drawn_model(config: ModelConfig, seed: int = 0) -> Model:
    model = build_model(config)
    for key, parameter in model.as_module().named_parameters():
        parameter.data.copy_(torch.from_numpy(draw(seed, key, tuple(parameter.shape))))
    model.as_module().eval().requires_grad_(False)
    return model


def classifier_config(*overrides: str, **changes: object) -> ModelConfig:
    """A tiny noisy classifier of the tiny model's six classes."""
    plain = configuration(*overrides).model()
    shared = plain.network.model_dump(exclude={"concat_channels", "context_channels", "skip_scale"})
    shared = {key: value for key, value in shared.items() if key in UNetEncoderConfig.model_fields}
    network = UNetEncoderConfig(**{**shared, "kind": "unet_encoder", "classes": 6, "pool": "attention", **changes})
    kept = {key: getattr(plain, key) for key in ("experiment", "image_size", "channels", "diffusion")}
    return NoisyClassifierModelConfig(**kept, network=network)


def guided_by_classifier(scale: float, gradient_at: str = "x_t") -> ClassifierGuidance:
    return ClassifierGuidance(kind="classifier", run="there", scale=scale, gradient_at=gradient_at)


def guides_of(guidance: GuidanceBase, **models: Model) -> Guides:
    """What load_guides gives, of models that need not fit."""
    return {name: guide_of(model, guidance.guides[name]) for name, model in models.items()}


def load(guidance, model: ModelConfig, other: Model) -> Guides:
    return load_guides(guidance, model, lambda run, weights: other)


SAMPLERS = {
    "ddim": DDIMConfig(kind="ddim", steps=3),
    "ancestral": AncestralConfig(kind="ancestral", steps=3),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_classifier_moves_the_samples_and_scale_0_does_not(pipeline_of, sampler: str) -> None:
    classifier = drawn_model(classifier_config(), seed=1)
    plain = pipeline_of(sampler=SAMPLERS[sampler])
    drawn = plain.draw([0, 1], 0)

    def guided(scale: float, classes: list[int] | None = None, gradient_at: str = "x_t") -> torch.Tensor:
        guidance = guided_by_classifier(scale, gradient_at).model_copy(update={"static_limit": 1.25})
        pipeline = pipeline_of(
            sampler=SAMPLERS[sampler],
            guidance=guidance,
            guides=guides_of(guidance, classifier=classifier),
            asked={"classes": classes},
        )
        return pipeline.draw([0, 1], 0)

    torch.testing.assert_close(guided(0.0), drawn)
    assert not torch.allclose(guided(5.0), drawn, atol=1e-3)
    assert not torch.allclose(guided(5.0, [0, 0]), guided(5.0, [3, 3]), atol=1e-3)
    if sampler == "ancestral":
        assert not torch.allclose(guided(5.0, [0, 0], "mean"), guided(5.0, [0, 0]), atol=1e-5)


def test_a_classifier_is_told_the_time_in_its_own_way(pipeline_of) -> None:
    """Of two processes with the same noise, one may number its steps up to 1000 whatever their count."""
    classifier = drawn_model(classifier_config("diffusion.time_input=scaled_index"))
    guidance = guided_by_classifier(1.0)
    pipeline = pipeline_of(
        sampler=SAMPLERS["ddim"], guidance=guidance, guides=guides_of(guidance, classifier=classifier)
    )
    told: dict[str, list[float]] = {"model": [], "classifier": []}
    for name, network in (("model", pipeline.last.network), ("classifier", classifier.network)):
        network.register_forward_pre_hook(lambda _, inputs, name=name: told[name].append(float(inputs[1][0])))
    pipeline.draw([0], 0)
    assert told["classifier"] == pytest.approx([time * 1000 / 50 for time in told["model"]])
    assert max(told["classifier"]) > 50


def test_an_unconditional_model_gets_its_classes_from_the_classifier(pipeline_of) -> None:
    guidance = guided_by_classifier(1.0)
    led = {"guidance": guidance, "guides": guides_of(guidance, classifier=drawn_model(classifier_config()))}
    pipeline = pipeline_of(**led)
    assert pipeline.wanted.reads == ("label",)
    assert set(pipeline.request(range(40), 0)["label"].tolist()) == set(range(6))
    with pytest.raises(UserError, match="class 6 is not in 0"):
        pipeline_of(**led, asked={"classes": [6]})
    with pytest.raises(UserError, match=r"^class 6 is not in 0\.\.5, the classes of the classifier$"):
        pipeline.follow({"index": torch.arange(1), "label": torch.tensor([6])}, 0)


def test_guidance_pulls_towards_the_class_that_the_classifier_sees(pipeline_of) -> None:
    """Drawn classifiers are no judges of shapes, but samples guided by one must please it more."""
    classifier = drawn_model(classifier_config(), seed=1)
    told: list[float] = []
    for scale in (0.0, 20.0):
        guidance = guided_by_classifier(scale)
        pipeline = pipeline_of(
            "sampler.steps=10",
            "sampler.eta=0",
            guidance=guidance,
            guides=guides_of(guidance, classifier=classifier),
            asked={"classes": [2]},
        )
        drawn = pipeline.draw(list(range(8)), 0).clone()
        logits = classifier.network(drawn, torch.zeros(8))
        told.append(float(torch.log_softmax(logits, -1)[:, 2].mean()))
    assert told[1] > told[0]


def test_classifier_free_guidance_leads_away_from_the_null(pipeline_of) -> None:
    asked = {"classes": [1, 4]}

    def drawn(scale: float, **options: object) -> torch.Tensor:
        guidance = ClassifierFreeGuidance(kind="classifier_free", scale=scale, static_limit=1.25, **options)
        return pipeline_of(*DROPPED, guidance=guidance, asked=asked).draw([0, 1], 0)

    plain = pipeline_of(*DROPPED, asked=asked).draw([0, 1], 0)
    torch.testing.assert_close(drawn(1.0), plain)
    assert not torch.allclose(drawn(3.0), plain, atol=1e-3)
    torch.testing.assert_close(drawn(3.0, one_batch=False), drawn(3.0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(drawn(3.0, interval=[1e5, 1e6]), plain)


def test_a_reference_network_is_read_by_its_own_process(pipeline_of) -> None:
    """A reference that predicts v beside a model that predicts eps: at scale 0 the samples are the reference's own."""
    config = configuration("diffusion.prediction=v").model()
    reference = drawn_model(config, seed=1)
    guidance = ClassifierFreeGuidance(
        kind="classifier_free", scale=0.0, reference=ReferenceConfig(run="there"), static_limit=1.25
    )
    sampler = DDIMConfig(kind="ddim", steps=3)
    led = pipeline_of(sampler=sampler, guidance=guidance, guides=guides_of(guidance, reference=reference))
    stage = DiffusingStage(
        reference.network,
        reference.conditioners,
        reference.process,
        config.shape,
        sampler=sampler,
        guidance=NoGuidance(kind="none", static_limit=1.25),
    )
    alone = build.pipeline_of({"single": stage}, RequestConfig())
    torch.testing.assert_close(led.draw([0, 1], 0), alone.draw([0, 1], 0))


def test_a_reference_network_stands_for_the_null(pipeline_of) -> None:
    weaker = drawn_model(configuration(*DROPPED).model(), seed=2)
    same = drawn_model(configuration(*DROPPED).model())

    def drawn(reference: Model, conditioning: str = "conditional") -> torch.Tensor:
        options = ReferenceConfig(run="there", conditioning=conditioning)
        guidance = ClassifierFreeGuidance(kind="classifier_free", scale=2.0, static_limit=1.25, reference=options)
        return pipeline_of(*DROPPED, guidance=guidance, guides=guides_of(guidance, reference=reference)).draw([0, 1], 0)

    usual = ClassifierFreeGuidance(kind="classifier_free", scale=2.0, static_limit=1.25)
    plain = pipeline_of(*DROPPED)
    # The model as its own reference: with the condition it changes nothing, without it is the usual guidance.
    torch.testing.assert_close(drawn(same), plain.draw([0, 1], 0), atol=1e-4, rtol=1e-4)
    expected = pipeline_of(*DROPPED, guidance=usual).draw([0, 1], 0)
    torch.testing.assert_close(drawn(same, "unconditional"), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(drawn(weaker), plain.draw([0, 1], 0), atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "told", "dropping"),
    [
        ((), "is unconditional", "conditioning=class conditioning.class_label.drop_rate=0.1"),
        (CLASSES, "was trained without dropping its condition", "conditioning.class_label.drop_rate=0.1"),
    ],
)
def test_classifier_free_guidance_without_a_null_is_refused(
    pipeline_of, overrides: tuple[str, ...], told: str, dropping: str
) -> None:
    guidance = ClassifierFreeGuidance(kind="classifier_free", scale=2.0)
    why = (
        f"^guidance: this model {told}, so classifier-free guidance has no unconditional .*: train with {dropping}, or"
    )
    with pytest.raises(UserError, match=why):
        pipeline_of(*overrides, guidance=guidance)
    pipeline_of(*overrides, guidance=guidance.model_copy(update={"scale": 1.0}))
    # Towards the null is a way as well.
    with pytest.raises(UserError, match="has no unconditional prediction"):
        pipeline_of(*overrides, guidance=guidance.model_copy(update={"scale": 0.5}))


def test_no_guidance_loads_nothing() -> None:
    def never(run: str, weights: str) -> Model:
        raise AssertionError(run)

    assert load_guides(NoGuidance(kind="none"), configuration().model(), never) == {}


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (lambda: configuration().model(), "guidance: there is no noisy classifier but a diffusion model"),
        (
            lambda: classifier_config("diffusion=v_cosine", "diffusion.timesteps=50"),
            "was trained on another noise schedule (cosine, 50 steps) than the model (linear, 50 steps)",
        ),
        (lambda: classifier_config("diffusion.timesteps=60"), "(linear, 60 steps) than the model (linear, 50 steps)"),
        (
            lambda: classifier_config("data.image_size=32", "network.attention_resolutions=[16]"),
            "takes images [3, 32, 32], the model draws [3, 16, 16]",
        ),
        (
            lambda: classifier_config(classes=7),
            "has 7 classes, conditioning.class_label of the model has 6; take one trained on the same classes",
        ),
    ],
)
def test_a_classifier_that_cannot_guide_is_named(other, line: str) -> None:
    model = configuration(*CLASSES).model()
    with torch.device("meta"):
        unfit = build_model(other())
    with pytest.raises(UserError) as error:
        load(guided_by_classifier(1.0), model, unfit)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_classifier_is_no_reference() -> None:
    guidance = ClassifierFreeGuidance(kind="classifier_free", scale=2.0, reference=ReferenceConfig(run="there"))
    with torch.device("meta"):
        unfit = build_model(classifier_config())
    with pytest.raises(UserError, match=r"^guidance\.reference: there is a noisy classifier and predicts no image"):
        load(guidance, configuration(*CLASSES).model(), unfit)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            (*CLASSES, "data.classes=7"),
            "has conditioning.class_label.classes=7, the model has 6; take one trained on the",
        ),
        (
            ("conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3"),
            "has conditioning.low_res (low_res), which the model does not have",
        ),
    ],
)
def test_a_reference_that_is_told_something_else_is_named(overrides: tuple[str, ...], line: str) -> None:
    guidance = ClassifierFreeGuidance(kind="classifier_free", scale=2.0, reference=ReferenceConfig(run="there"))
    with torch.device("meta"):
        unfit, unconditional = (build_model(configuration(*some).model()) for some in (overrides, ()))
    model = configuration(*CLASSES).model()
    with pytest.raises(UserError) as error:
        load(guidance, model, unfit)
    assert str(error.value).startswith(f"guidance.reference: there {line}")
    assert load(guidance, model, unconditional)["reference"].model is unconditional


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ("diffusion/schedule=cosine",),
            "was trained on another noise schedule (cosine, 50 steps) than the model (linear,",
        ),
        (("diffusion.timesteps=60",), "(linear, 60 steps) than the model (linear, 50 steps)"),
        (
            ("data.image_size=32", "network.attention_resolutions=[16]"),
            "takes images [3, 32, 32], the model draws [3, 16",
        ),
    ],
)
def test_a_reference_of_other_noise_or_images_is_named(overrides: tuple[str, ...], line: str) -> None:
    guidance = ClassifierFreeGuidance(kind="classifier_free", scale=2.0, reference=ReferenceConfig(run="there"))
    with torch.device("meta"):
        unfit = build_model(configuration(*overrides).model())
    with pytest.raises(UserError) as error:
        load(guidance, configuration().model(), unfit)
    assert str(error.value).startswith("guidance.reference: there ")
    assert line in str(error.value)


def test_tables_that_differ_at_their_noisiest_step_alone_are_two() -> None:
    """alpha_bar is 4e-9 there, or 8e-9: one and a half times the noise, in numbers that hardly differ."""
    betas = build_process(configuration().model().diffusion).betas
    before = float(np.prod(1 - betas[:-1]))
    one, same, other = (GaussianProcess([*betas[:-1], 1 - last / before]) for last in (4e-9, 4.000001e-9, 8e-9))
    assert one.has_same_time_as(same)
    assert not one.has_same_time_as(other)


def test_guides_are_loaded_with_the_weights_that_were_asked_for() -> None:
    asked: list[tuple[str, str]] = []
    with torch.device("meta"):
        classifier, model = build_model(classifier_config()), configuration().model()
        others = {"judge": classifier, "weak": build_model(model)}

    def noting(run: str, weights: str) -> Model:
        asked.append((run, weights))
        return others[run]

    guidance = ComposedGuidance(
        kind="composed",
        classifier={"run": "judge", "weights": "raw"},
        classifier_free={"scale": 2.0, "reference": {"run": "weak", "weights": "raw"}},
    )
    loaded = {name: guide.model for name, guide in load_guides(guidance, model, noting).items()}
    assert loaded == {"classifier": classifier, "reference": others["weak"]}
    assert asked == [("judge", "raw"), ("weak", "raw")]


def test_both_conventions_of_the_scale_are_recorded_alike() -> None:
    by_scale = ClassifierFreeGuidance(kind="classifier_free", scale=1.5).recorded()
    by_weight = ClassifierFreeGuidance(kind="classifier_free", paper_w=0.5, one_batch=False).recorded()
    assert by_scale == by_weight
    assert (by_scale["scale"], by_scale["paper_w"]) == (1.5, 0.5)
    composed = ComposedGuidance(kind="composed", classifier_free=ClassifierFreeOptions(scale=3.0))
    assert composed.recorded()["classifier_free"]["paper_w"] == 2.0
    assert NoGuidance(kind="none").recorded()["scale"] is None
