"""The `metrics` group: what is measured on samples, each metric with everything that changes its number."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from difflab.conditioning.config import DownsampleFilter
from difflab.config.base import Config

ExtractorName = Literal["lite0", "inception", "random"]
Need = Literal["samples", "reference", "shapes", "pair", "low_res"]
"""What a metric needs besides a network: the samples alone, a data set to compare with, shapes data, the original of
each sample, or the low-resolution image that each enlarges."""

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class MetricBase(Config):
    """What every metric has.

    label: put before the sample count in the logged name (`adm` gives `fid@adm-50k`); it names, it measures nothing.
    n: the sample count the metric is defined at; null takes whatever is drawn, any other count is refused.
    """

    needs: ClassVar[Need] = "samples"

    label: Label | None = None
    n: int | None = Field(default=None, ge=2)


class ExtractorBase(MetricBase):
    """A metric on features of images.

    extractor: lite0 = EfficientNet-lite0, ImageNet (comes with the installation); inception = the 2015 FID network;
        random = a small network with drawn weights, for tests.
    weights: file of the Inception weights; null looks in the caches, then downloads.
    """

    extractor: ExtractorName = "lite0"
    weights: str | None = None

    @model_validator(mode="after")
    def _weights_are_read(self) -> ExtractorBase:
        if self.weights is not None and self.extractor != "inception":
            raise ValueError(f"weights={self.weights} is not read by extractor={self.extractor}; set weights=null")
        return self


class ReferenceBase(ExtractorBase):
    """A metric between samples and a data set; reference_n: at most that many of its images, null = all."""

    needs: ClassVar[Need] = "reference"

    reference_n: int | None = Field(default=None, ge=2)


class FIDConfig(ReferenceBase):
    """Frechet Inception distance (Heusel et al. 2017), only with the 2015 network; anything else is an `fd`."""

    kind: Literal["fid"] = "fid"
    extractor: Literal["inception"] = "inception"


class FDConfig(ReferenceBase):
    """Frechet distance between Gaussians fitted to the features of any extractor; logged as `fd-<extractor>`."""

    kind: Literal["fd"] = "fd"


class KIDConfig(ReferenceBase):
    """Kernel Inception distance (Binkowski et al. 2018): unbiased MMD^2, kernel (gamma x.y + coef)^degree.

    gamma: null = 1 / number of features. The value is the mean over `subsets` draws of `subset_size` images of each
    side, seeded by `seed`; its spread is their standard deviation.
    """

    kind: Literal["kid"] = "kid"
    subsets: int = Field(default=100, ge=1)
    subset_size: int = Field(default=1000, ge=2)
    degree: int = Field(default=3, ge=1)
    gamma: float | None = Field(default=None, gt=0)
    coef: float = 1.0
    seed: int = Field(default=2020, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _subsets_fit(self) -> KIDConfig:
        for name, count in (("n", self.n), ("reference_n", self.reference_n)):
            if count is not None and count < self.subset_size:
                raise ValueError(f"subset_size={self.subset_size} exceeds {name}={count}; lower subset_size")
        return self


class PrecisionRecallConfig(ReferenceBase):
    """Improved precision and recall (Kynkaanniemi et al. 2019): two results, `precision` and `recall`.

    k: which nearest neighbour gives the radius of the ball around an image. Both numbers depend on the counts of either
    side, so they compare at equal `n` and `reference_n` only.
    """

    kind: Literal["precision_recall"] = "precision_recall"
    k: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _neighbours_fit(self) -> PrecisionRecallConfig:
        for name, count in (("n", self.n), ("reference_n", self.reference_n)):
            if count is not None and count <= self.k:
                raise ValueError(f"k={self.k} neighbours need at least {self.k + 1} images, {name}={count}; lower k")
        return self


class InceptionScoreConfig(ExtractorBase):
    """Inception score (Salimans et al. 2016): mean over `splits` parts, after a shuffle seeded by `seed`."""

    kind: Literal["inception_score"] = "inception_score"
    extractor: ExtractorName = "inception"
    splits: int = Field(default=10, ge=1)
    seed: int = Field(default=2020, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _splits_fit(self) -> InceptionScoreConfig:
        if self.n is not None and self.n < self.splits:
            raise ValueError(f"splits={self.splits} exceeds n={self.n}; lower splits")
        return self


class OracleConfig(MetricBase):
    """The exact judge of the shapes data: share of well-formed images and what they show.

    Where every sample was asked for a class that it can read, also the share that show their class.
    """

    needs: ClassVar[Need] = "shapes"

    kind: Literal["oracle"] = "oracle"


class PSNRConfig(MetricBase):
    """Peak signal-to-noise ratio of each sample to its original: 10 log10(255^2 / MSE) dB; their mean."""

    needs: ClassVar[Need] = "pair"

    kind: Literal["psnr"] = "psnr"


class SSIMConfig(MetricBase):
    """Structural similarity of each sample to its original (Wang et al. 2004); the mean over samples."""

    needs: ClassVar[Need] = "pair"

    kind: Literal["ssim"] = "ssim"


class ConsistencyConfig(MetricBase):
    """Mean squared error between each sample made smaller and the low-resolution image that it enlarges, of pixels in
    [0, 1]; the mean over samples (SR3, section 4; its table has it times 1e5).

    size: pixels per side that samples are made smaller to; downsample: the filter. null = as the model was trained; of
        pictures that no known model drew, both have to be given.
    """

    needs: ClassVar[Need] = "low_res"

    kind: Literal["consistency"] = "consistency"
    size: int | None = Field(default=None, ge=1)
    downsample: DownsampleFilter | None = None


PairedConfig = PSNRConfig | SSIMConfig | ConsistencyConfig
"""Metrics that compare each sample with a picture of its own."""

MetricConfig = Annotated[
    FIDConfig | FDConfig | KIDConfig | PrecisionRecallConfig | InceptionScoreConfig | OracleConfig | PairedConfig,
    Field(discriminator="kind"),
]


def _names_are_honest(metrics: dict[str, MetricConfig | None]) -> dict[str, MetricConfig | None]:
    seen: dict[tuple[str, str, str | None, str | None], str] = {}
    for name, config in metrics.items():
        if config is None:
            continue
        if "fid" in name.lower() and config.kind != "fid":
            raise ValueError(f"metrics.{name} is called FID but has kind={config.kind}; give it another name")
        logged = (config.kind, getattr(config, "extractor", ""), getattr(config, "weights", None), config.label)
        if logged in seen:
            raise ValueError(f"metrics.{seen[logged]} and metrics.{name} would be logged as one; give one a label")
        seen[logged] = name
    return metrics


MetricsConfig = Annotated[dict[str, MetricConfig | None], AfterValidator(_names_are_honest)]
"""Metrics by a name to override them with (`metrics.kid.subset_size=100`); null switches one off."""
