"""The configurations of all metrics: the options of each kind besides the common ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from difflab.conditioning.config import DownsampleFilter
from difflab.config.axes import METRICS
from difflab.config.metrics import (
    RECONSTRUCTIONS,
    SAMPLES,
    Directions,
    DistanceBase,
    ExtractorBase,
    ExtractorName,
    Measured,
    MetricBase,
    Need,
)
from difflab.config.parts import FrozenConfig
from difflab.networks.perceptual.config import Lite0Config, LPIPSConfig

BOTH = SAMPLES | RECONSTRUCTIONS


@METRICS.register("difflab.metrics.frechet:FID")
class FIDConfig(DistanceBase):
    """Frechet inception distance (Heusel et al. 2017), only with the 2015 network; anything else is an `fd`.

    Of reconstructions it is logged as `rfid`.
    """

    is_fid: ClassVar[bool] = True
    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"fid": False, "rfid": False}

    kind: Literal["fid"] = "fid"
    extractor: Literal["inception"] = "inception"
    """pt_inception-2015-12-05, which resizes images to 299 pixels as TensorFlow 1 does."""


@METRICS.register("difflab.metrics.frechet:FrechetDistance")
class FDConfig(DistanceBase):
    """Frechet distance between Gaussians fitted to the features of any extractor; logged as `fd-<extractor>`, and of
    reconstructions as `rfd-<extractor>`.
    """

    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"fd": False, "rfd": False}

    kind: Literal["fd"] = "fd"


@METRICS.register("difflab.metrics.kid:KernelDistance")
class KIDConfig(DistanceBase):
    """Kernel inception distance (Binkowski et al. 2018): unbiased MMD^2, kernel (gamma x.y + coef)^degree.

    The value is the mean over subsets, its spread their standard deviation. Of reconstructions it is logged as
    `rkid-<extractor>`.
    """

    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"kid": False, "rkid": False}

    kind: Literal["kid"] = "kid"
    subsets: int = Field(default=100, ge=1)
    """Number of subsets; 100 in torch-fidelity."""
    subset_size: int = Field(default=1000, ge=2)
    """Images of each side in a subset; 1000 in torch-fidelity."""
    degree: int = Field(default=3, ge=1)
    """Degree of the kernel; 3 in section 4."""
    gamma: float | None = Field(default=None, gt=0)
    """Factor of the kernel; null is 1 / number of features."""
    coef: float = 1.0
    """Constant term of the kernel."""
    seed: int = Field(default=2020, ge=0, lt=2**32)
    """Seed of the subsets; 2020 in torch-fidelity."""

    @model_validator(mode="after")
    def _subsets_fit(self) -> Self:
        for name, count in (("n", self.n), ("reference_n", self.reference_n)):
            if count is not None and count < self.subset_size:
                raise ValueError(f"subset_size={self.subset_size} exceeds {name}={count}; lower subset_size")
        return self


@METRICS.register("difflab.metrics.precision_recall:PrecisionRecall")
class PrecisionRecallConfig(DistanceBase):
    """Improved precision and recall (Kynkaanniemi et al. 2019): two results, `precision` and `recall`.

    Both depend on the counts of either side: compare them only at equal `n` and `reference_n`.
    """

    larger_is_better: ClassVar[Directions] = {"precision": True, "recall": True}

    kind: Literal["precision_recall"] = "precision_recall"
    k: int = Field(default=3, ge=1)
    """Which nearest neighbour gives the radius of the ball around an image; 3 in section 3."""

    @model_validator(mode="after")
    def _neighbours_fit(self) -> Self:
        for name, count in (("n", self.n), ("reference_n", self.reference_n)):
            if count is not None and count <= self.k:
                raise ValueError(f"k={self.k} neighbours need at least {self.k + 1} images, {name}={count}; lower k")
        return self


@METRICS.register("difflab.metrics.inception_score:InceptionScore")
class InceptionScoreConfig(ExtractorBase):
    """Inception score (Salimans et al. 2016): mean over parts of the samples, the spread their standard deviation."""

    larger_is_better: ClassVar[Directions] = {"is": True}

    kind: Literal["inception_score"] = "inception_score"
    extractor: ExtractorName = "inception"
    """lite0, inception or random."""
    splits: int = Field(default=10, ge=1)
    """Number of parts; 10 of 5,000 samples in the paper."""
    seed: int = Field(default=2020, ge=0, lt=2**32)
    """Seed of the shuffle before splitting; 2020 in torch-fidelity, none in ADM."""

    @model_validator(mode="after")
    def _splits_fit(self) -> Self:
        if self.n is not None and self.n < self.splits:
            raise ValueError(f"splits={self.splits} exceeds n={self.n}; lower splits")
        return self


@METRICS.register("difflab.metrics.oracle_results:ShapesOracle")
class OracleConfig(MetricBase):
    """The exact judge of the shapes data: the rate of well-formed images, and what they show.

    If every sample was requested with a class that the oracle can recognize, also the rate of samples showing their
    class; with captions of the shapes data, the rates of samples showing the count, colours, shapes and relations that
    they name; with boxes and phrases of it, how far the objects named lie in their boxes; with its maps of classes,
    how far shapes are where the maps have them.
    """

    reads_classes: ClassVar[bool] = True
    larger_is_better: ClassVar[Directions] = {
        "oracle": None,
        "oracle-well-formed": True,
        "oracle-mean-fit": True,
        "oracle-class-accuracy": True,
        "oracle-caption": True,
        "oracle-layout": True,
        "oracle-map": True,
    }

    kind: Literal["oracle"] = "oracle"


@METRICS.register("difflab.pipelines.class_accuracy:ClassAccuracy")
class ClassesConfig(MetricBase):
    """Accuracy of a classifier of clean images at predicting the requested class of samples.

    Two results: `class-accuracy`, and `class-confidence`, the mean probability of the requested class. Results of
    different classifiers are not comparable.
    """

    reads_classes: ClassVar[bool] = True
    larger_is_better: ClassVar[Directions] = {"class-accuracy": True, "class-confidence": True}

    kind: Literal["classes"] = "classes"
    classifier: str
    """A run of task=classifier, an exported folder or a checkpoint."""

    @field_validator("classifier", mode="before")
    @classmethod
    def _there_is_one(cls, classifier: object) -> object:
        if classifier in (None, ""):
            raise ValueError(
                "a classifier of the same classes is needed: give a run of task=classifier, as in "
                "classifier=runs/classifier/shapes32/demo"
            )
        return classifier

    @property
    def asks(self) -> Mapping[str, str]:
        return {"classifier": self.classifier}


class CLIPMetricBase(MetricBase):
    """The options of every metric that a stored CLIP judges by."""

    clip: str
    """A run of task=contrastive, an exported folder or a checkpoint."""

    @field_validator("clip", mode="before")
    @classmethod
    def _there_is_one(cls, clip: object) -> object:
        if clip in (None, ""):
            raise ValueError(
                "a CLIP is needed: give a run of task=contrastive, as in clip=runs/clip/shapes32/demo, or imported "
                "weights"
            )
        return clip

    @property
    def asks(self) -> Mapping[str, str]:
        return {"clip": self.clip}


Convention = Literal["glide", "imagen", "clipscore"]


@METRICS.register("difflab.pipelines.clip_score:CLIPScore")
class CLIPScoreConfig(CLIPMetricBase):
    """How well samples show their captions: the cosine of the embeddings of both by a stored CLIP.

    A result per convention, `clip-score-<convention>`, the mean over the samples. Results of different CLIPs are not
    comparable.
    """

    larger_is_better: ClassVar[Directions] = {"clip-score": True}

    kind: Literal["clip_score"] = "clip_score"
    conventions: Annotated[list[Convention], Field(min_length=1)] = Field(
        default_factory=lambda: ["glide", "imagen", "clipscore"]
    )
    """glide: 100 cos (Nichol et al. 2021). imagen: cos (Saharia et al. 2022). clipscore: 2.5 max(cos, 0) of the caption
    after "A photo depicts" (Hessel et al. 2021), and RefCLIPScore if the data has several captions per image."""

    @field_validator("conventions")
    @classmethod
    def _each_once(cls, conventions: list[Convention]) -> list[Convention]:
        if len(set(conventions)) < len(conventions):
            raise ValueError(f"{conventions} has one twice: give each once")
        return conventions


@METRICS.register("difflab.pipelines.clip_similarity:CLIPImageSimilarity")
class CLIPImageSimilarityConfig(CLIPMetricBase):
    """How close each sample is to its original: the cosine of the embeddings of both by a stored CLIP; the mean over
    samples.

    DreamBooth's CLIP-I (Ruiz et al. 2023, section 4.1) is the same over all pairs of samples and real images. Results
    of different CLIPs are not comparable.
    """

    needs: ClassVar[tuple[Need, ...]] = ("pair",)
    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"clip-image-similarity": True}

    kind: Literal["clip_image_similarity"] = "clip_image_similarity"


@METRICS.register("difflab.metrics.similarity:PSNR")
class PSNRConfig(MetricBase):
    """Peak signal-to-noise ratio of each sample to its original, 10 log10(255^2 / MSE) dB; the mean over samples."""

    needs: ClassVar[tuple[Need, ...]] = ("pair",)
    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"psnr": True}

    kind: Literal["psnr"] = "psnr"


@METRICS.register("difflab.metrics.similarity:SSIM")
class SSIMConfig(MetricBase):
    """Structural similarity of each sample to its original (Wang et al. 2004); the mean over samples."""

    needs: ClassVar[tuple[Need, ...]] = ("pair",)
    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"ssim": True}

    kind: Literal["ssim"] = "ssim"


@METRICS.register("difflab.metrics.similarity:Consistency")
class ConsistencyConfig(MetricBase):
    """Mean squared error between each sample, downsampled, and the low-resolution image that it enlarges.

    Of pixels in [0, 1]; the mean over samples (SR3, section 4; its table shows it times 1e5). For images of an unknown
    model both keys have to be given.
    """

    needs: ClassVar[tuple[Need, ...]] = ("low_res",)
    larger_is_better: ClassVar[Directions] = {"consistency": False}

    kind: Literal["consistency"] = "consistency"
    size: int | None = Field(default=None, ge=1)
    """Pixels per side that samples are downsampled to; null is as the model was trained."""
    downsample: DownsampleFilter | None = None
    """area, bilinear or bicubic; null is as the model was trained."""


@METRICS.register("difflab.pipelines.perceptual:PerceptualMetric")
class PerceptualConfig(MetricBase):
    """Distance of each sample to its original in the features of EfficientNet-lite0; the mean over samples. Not LPIPS.

    As `perceptual=lite0` in training: the cosine distance, which is in [0, 2].
    """

    needs: ClassVar[tuple[Need, ...]] = ("pair",)
    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"perceptual-lite0": False}

    kind: Literal["perceptual"] = "perceptual"
    network: FrozenConfig = Lite0Config.model_fields["network"].default
    """The file of its weights, by default that of an installed package."""

    @property
    def logged(self) -> str:
        """The name of its result."""
        return "perceptual-lite0"

    @property
    def distance(self) -> Lite0Config:
        """The distance."""
        return Lite0Config(network=self.network)


@METRICS.register("difflab.pipelines.perceptual:PerceptualMetric")
class LPIPSMetricConfig(MetricBase):
    """LPIPS (Zhang et al. 2018), with VGG16, of each sample to its original; the mean over samples."""

    needs: ClassVar[tuple[Need, ...]] = ("pair",)
    measures: ClassVar[frozenset[Measured]] = BOTH
    larger_is_better: ClassVar[Directions] = {"lpips": False}

    kind: Literal["lpips"] = "lpips"
    network: FrozenConfig = LPIPSConfig.model_fields["network"].default
    """The file of torchvision's VGG16 (IMAGENET1K_V1, vgg16-397923af.pth), which has to be downloaded."""
    channel_weights: FrozenConfig = LPIPSConfig.model_fields["channel_weights"].default
    """The file of LPIPS 0.1's weights of the channels, by default the copy in torchmetrics."""

    @property
    def logged(self) -> str:
        """The name of its result."""
        return "lpips"

    @property
    def distance(self) -> LPIPSConfig:
        """The distance."""
        return LPIPSConfig(network=self.network, channel_weights=self.channel_weights)


@METRICS.register("difflab.metrics.latents:Codebook")
class CodebookConfig(MetricBase):
    """How an autoencoder uses its codebook, over all images: `codebook-perplexity`, the exponential of the entropy of
    the codes' frequencies, and `codebook-used`, the share of the codes that occur at all.
    """

    measures: ClassVar[frozenset[Measured]] = RECONSTRUCTIONS
    larger_is_better: ClassVar[Directions] = {"codebook-perplexity": True, "codebook-used": True}

    kind: Literal["codebook"] = "codebook"


@METRICS.register("difflab.metrics.latents:KL")
class KLMetricConfig(MetricBase):
    """Divergence of an autoencoder's latents from the standard normal, in nats per image; the mean over images."""

    measures: ClassVar[frozenset[Measured]] = RECONSTRUCTIONS
    larger_is_better: ClassVar[Directions] = {"kl": None}

    kind: Literal["latent_kl"] = "latent_kl"


@METRICS.register("difflab.metrics.oracle_agreement:OracleAgreement")
class OracleAgreementConfig(MetricBase):
    """What the exact judge of the shapes data reads in samples or reconstructions, beside what it reads in their
    originals.

    `oracle-same-objects`: the share of the originals' objects that it reads with the same shape, colour, size and
    position; `oracle-same-images`: the share of images of which it reads the same objects, no others, and the same
    background. If the data records its scenes, `oracle-true-objects` and `oracle-true-images` of reconstructions are
    the same beside the scenes themselves.
    """

    measures: ClassVar[frozenset[Measured]] = BOTH
    needs: ClassVar[tuple[Need, ...]] = ("pair",)
    larger_is_better: ClassVar[Directions] = {"oracle-same": True, "oracle-true": True}

    kind: Literal["oracle_agreement"] = "oracle_agreement"
    tolerance: float = Field(default=0.03, gt=0, lt=0.5)
    """The largest distance of the centres of two objects at the same position, in sides of the image."""
