"""The `guidance` group: how predictions are steered and kept in range."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from difflab.config.base import Config

Weights = Literal["auto", "ema", "raw"]
"""Which weights of a run: the averaged ones where it keeps them (auto), the averaged, or the raw ones."""


def _is_ordered(interval: list[float]) -> list[float]:
    if not 0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={interval} must be [low, high] with 0 <= low < high, as in [0.3, 1.6]")
    return interval


Interval = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_is_ordered)]


class ReferenceConfig(Config):
    """A further network whose prediction is led away from (autoguidance), instead of the model without its condition.

    run: a run directory, an exported folder or a checkpoint.
    told: condition = what the model is told; nothing = its own null condition.
    """

    run: str
    weights: Weights = "auto"
    told: Literal["condition", "nothing"] = "condition"


class ClassifierFreeOptions(Config):
    """eps = eps_uncond + scale (eps_cond - eps_uncond); paper_w is the weight of the CFG paper, scale - 1.

    scale, paper_w: one of them, or neither for a scale of 1, the conditional prediction.
    interval: [low, high] of the noise level sigma / alpha where guidance acts; null = everywhere.
    rescale: 0..1, how far the guided prediction is brought back to the spread of the conditional one.
    channels: only the first so many channels are guided; null = all.
    reference: a further network to lead away from; null = the model itself, without its condition.
    """

    scale: float | None = None
    paper_w: float | None = None
    interval: Interval | None = None
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    channels: Annotated[int, Field(ge=1)] | None = None
    reference: ReferenceConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_both(self.scale, self.paper_w)
        return self

    @property
    def effective_scale(self) -> float:
        """The scale in the library's convention; 1 is conditional only."""
        return _effective_scale(self.scale, self.paper_w)


class ClassifierOptions(Config):
    """The gradient of a noisy classifier, `scale` times.

    run: the trained classifier: a run directory, an exported folder or a checkpoint.
    gradient_at: where an ancestral step takes it: x_t, or the mean of the next x.
    interval: [low, high] of the noise level sigma / alpha where guidance acts; null = everywhere.
    """

    scale: Annotated[float, Field(ge=0)] = 1.0
    run: str
    weights: Weights = "auto"
    gradient_at: Literal["x_t", "mean"] = "x_t"
    interval: Interval | None = None


class _Prediction(Config):
    """What every kind has: how x0 is kept in range, and how the network is run.

    one_batch: all predictions of a step in one run of the network; false = one after the other, in less memory.
    """

    threshold: Literal["none", "static", "dynamic"] = "static"
    static_limit: float = Field(default=1.0, gt=0)
    dynamic_percentile: float = Field(default=0.995, gt=0, le=1)
    dynamic_maximum: float | None = Field(default=None, ge=1)
    rederive_eps: bool = True
    one_batch: bool = True


class NoGuidance(_Prediction):
    """The network's own prediction. scale and paper_w are there to be refused with a line that helps."""

    kind: Literal["none"]
    scale: float | None = None
    paper_w: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_both(self.scale, self.paper_w)
        scale = _effective_scale(self.scale, self.paper_w)
        if scale != 1.0:
            raise ValueError(
                f"kind=none cannot apply a scale of {scale:g}: choose guidance=classifier_free, "
                "or guidance=classifier guidance.run=..., or remove scale and paper_w"
            )
        return self

    def classifier_free_options(self) -> ClassifierFreeOptions | None:
        return None

    def classifier_options(self) -> ClassifierOptions | None:
        return None


class ClassifierFreeGuidance(_Prediction, ClassifierFreeOptions):
    """Classifier-free guidance alone."""

    kind: Literal["classifier_free"]

    def classifier_free_options(self) -> ClassifierFreeOptions | None:
        return self

    def classifier_options(self) -> ClassifierOptions | None:
        return None


class ClassifierGuidance(_Prediction, ClassifierOptions):
    """Classifier guidance alone."""

    kind: Literal["classifier"]

    def classifier_free_options(self) -> ClassifierFreeOptions | None:
        return None

    def classifier_options(self) -> ClassifierOptions | None:
        return self


class ComposedGuidance(_Prediction):
    """Several at once; null leaves one out."""

    kind: Literal["composed"]
    classifier_free: ClassifierFreeOptions | None = None
    classifier: ClassifierOptions | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.classifier_free is None and self.classifier is None:
            raise ValueError("kind=composed without classifier_free and classifier guides nothing: give one of them")
        return self

    def classifier_free_options(self) -> ClassifierFreeOptions | None:
        return self.classifier_free

    def classifier_options(self) -> ClassifierOptions | None:
        return self.classifier


GuidanceConfig = Annotated[
    NoGuidance | ClassifierFreeGuidance | ClassifierGuidance | ComposedGuidance, Field(discriminator="kind")
]


def _refuse_both(scale: float | None, paper_w: float | None) -> None:
    if scale is not None and paper_w is not None:
        raise ValueError(
            "scale and paper_w say the same thing (scale = 1 + paper_w): give one of them, and null for the other"
        )


def _effective_scale(scale: float | None, paper_w: float | None) -> float:
    if scale is not None:
        return scale
    return 1.0 if paper_w is None else 1.0 + paper_w
