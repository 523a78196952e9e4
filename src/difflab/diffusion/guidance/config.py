"""Configuration of each kind of guidance: classifier-free, classifier, composed, and none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from difflab.config.axes import GUIDANCE
from difflab.config.base import Config
from difflab.config.guidance import GuidanceBase, GuidanceOptions, GuideRun, Interval, Weights
from difflab.config.slots import Slot, Slots


class ReferenceConfig(Config):
    """A reference network (autoguidance), used instead of the model's null condition."""

    run: str
    """A run directory, an exported folder or a checkpoint."""
    weights: Weights = "auto"
    """auto (ema if the run keeps averaged weights), ema or raw."""
    conditioning: Literal["conditional", "unconditional"] = "conditional"
    """conditional: conditioned as the model is; unconditional: on its own null condition (EDM2)."""


class ClassifierFreeOptions(GuidanceOptions):
    """eps = eps_uncond + scale (eps_cond - eps_uncond); paper_w is the weight of the CFG paper, scale - 1.

    At most one of scale and paper_w may be set; with neither, the scale is 1, the conditional prediction.
    """

    scale: float | None = None
    """eps_uncond + scale (eps_cond - eps_uncond); null or 1 is conditional only."""
    paper_w: float | None = None
    """The weight of the CFG paper, scale - 1 (its tables 1 and 2: 0.1 to 4)."""
    interval: Interval | None = None
    """[low, high] of sigma / alpha where guidance acts (Kynkaanniemi et al. 2024); null for everywhere."""
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0..1, how far the guided prediction is rescaled to the std of the conditional one (Lin et al. 2023)."""
    channels: Annotated[int, Field(ge=1)] | None = None
    """Number of leading channels that are guided (3 in DiT); null for all."""
    reference: ReferenceConfig | None = None
    """The reference network (`guidance=autoguidance`); null uses the model without its condition."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_both(self.scale, self.paper_w)
        return self

    @property
    def effective_scale(self) -> float:
        """The scale as eps_uncond + scale (eps_cond - eps_uncond); 1 is conditional only."""
        return _effective_scale(self.scale, self.paper_w)

    @property
    def guides(self) -> Mapping[str, GuideRun]:
        if self.reference is None:
            return {}
        named = self.reference
        return {"reference": GuideRun(named.run, named.weights, "difflab.pipelines.guides:ReferenceGuide", named)}

    @property
    def needs_null(self) -> bool:
        return self.effective_scale != 1.0 and self.reference is None

    @property
    def calls(self) -> int:
        once = self.effective_scale in (0.0, 1.0) or bool(self.interval or self.reference)
        return 1 if once else 2

    def recorded(self) -> dict[str, Any]:
        return super().recorded() | {"scale": self.effective_scale, "paper_w": self.effective_scale - 1.0}


class ClassifierOptions(GuidanceOptions):
    """The gradient of a noisy classifier, times `scale`."""

    scale: Annotated[float, Field(ge=0)] = 1.0
    """Scale of the gradient; in ADM 1.0 at 64 pixels, 0.5 at 128, 1.0 at 256 (10.0 unconditional), 4.0 at 512."""
    run: str
    """The trained classifier: a run directory (of task=noisy_classifier), an exported folder or a checkpoint."""
    weights: Weights = "auto"
    """auto (ema if the run keeps averaged weights), ema or raw."""
    gradient_at: Literal["x_t", "mean"] = "x_t"
    """Where an ancestral step takes the gradient: x_t (the released code), or the mean of the next x (the paper)."""
    interval: Interval | None = None
    """[low, high] of sigma / alpha where it acts, null for everywhere; [0, 10] for few DDIM steps on a cosine table."""

    @property
    def guides(self) -> Mapping[str, GuideRun]:
        return {"classifier": GuideRun(self.run, self.weights, "difflab.pipelines.guides:ClassifierGuide")}


@GUIDANCE.register("difflab.diffusion.guidance.build:nothing")
class NoGuidance(GuidanceBase):
    """The network's own prediction, with only the threshold applied.

    scale and paper_w exist only to be refused with a helpful message.
    """

    acts: ClassVar[bool] = False

    kind: Literal["none"]
    scale: float | None = None
    """Must be 1: other scales need guidance=classifier_free or guidance=classifier."""
    paper_w: float | None = None
    """Must be 0."""

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


@GUIDANCE.register("difflab.diffusion.guidance.build:classifier_free")
class ClassifierFreeGuidance(GuidanceBase, ClassifierFreeOptions):
    """Classifier-free guidance (Ho & Salimans 2022), or autoguidance (Karras et al. 2024) with a reference."""

    part: ClassVar[type[GuidanceOptions] | None] = ClassifierFreeOptions

    kind: Literal["classifier_free"]


@GUIDANCE.register("difflab.diffusion.guidance.build:classifier")
class ClassifierGuidance(GuidanceBase, ClassifierOptions):
    """Guidance by the gradient of a noisy classifier's log p(y | x_t) (ADM, section 4)."""

    part: ClassVar[type[GuidanceOptions] | None] = ClassifierOptions

    kind: Literal["classifier"]


@GUIDANCE.register("difflab.diffusion.guidance.build:composed")
class ComposedGuidance(Slots, GuidanceBase):
    """Several kinds of guidance at once, each under the name of its kind; null omits one.

    They are applied in the order in which kinds are registered, difflab's own before those of plugins.
    """

    kind: Literal["composed"]

    @classmethod
    def slots(cls) -> Mapping[str, Slot]:
        return {
            kind.name: Slot(part, None, kind.package)
            for kind in GUIDANCE.values()
            if (part := cast("type[GuidanceBase]", kind.config).part) is not None
        }

    @property
    def parts(self) -> Mapping[str, GuidanceOptions]:
        """The options of the parts in use, by kind, in the order they are applied."""
        return self.chosen_slots

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.parts:
            *first, last = self.slots()
            raise ValueError(f"kind=composed needs at least one of {', '.join(first)} and {last}: give one of them")
        requested: dict[str, tuple[str, GuideRun]] = {}
        for kind, part in self.parts.items():
            for name, guide in part.guides.items():
                if name in requested and requested[name][1] != guide:
                    raise ValueError(
                        f"{requested[name][0]} and {kind} use two different models named {name}: remove one of the two"
                    )
                requested[name] = kind, guide
        return self

    @property
    def guides(self) -> Mapping[str, GuideRun]:
        # The names of results depend on the order of these files.
        return {name: guide for part in reversed([*self.parts.values()]) for name, guide in part.guides.items()}

    @property
    def needs_null(self) -> bool:
        return any(part.needs_null for part in self.parts.values())

    @property
    def calls(self) -> int:
        return max(part.calls for part in self.parts.values())

    def recorded(self) -> dict[str, Any]:
        return super().recorded() | {kind: part.recorded() for kind, part in self.parts.items()}


def _refuse_both(scale: float | None, paper_w: float | None) -> None:
    if scale is not None and paper_w is not None:
        raise ValueError(
            "scale and paper_w set the same quantity (scale = 1 + paper_w): give one of them, and null for the other"
        )


def _effective_scale(scale: float | None, paper_w: float | None) -> float:
    if scale is not None:
        return scale
    return 1.0 if paper_w is None else 1.0 + paper_w
