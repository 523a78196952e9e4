"""The axes of the design space: one registry per axis, filled by difflab's own folders and by plugins."""

from __future__ import annotations

from collections.abc import Iterator

from difflab.config.registry import Names, Parts, Registry

CONDITIONERS = Registry(
    "conditioning",
    "difflab.conditioning.config",
    "difflab.conditioning.text.config",
    "difflab.conditioning.inpainting.config",
    "difflab.conditioning.layout.config",
    "difflab.conditioning.segmentation.config",
    "difflab.conditioning.clip_image.config",
    base="difflab.conditioning.config:ConditionerBase",
)
"""The conditioning besides x and time. Builders: (config, embedding_dim=, image_size=) -> `Conditioner`."""

DEGRADATIONS = Registry(
    "degradation",
    "difflab.conditioning.degradation.config",
    base="difflab.conditioning.degradation.config:DegradationBase",
    words=True,
)
"""How low-resolution images are degraded at random. Builders: (config) -> `Degradation`."""

SAMPLERS = Registry("sampler", "difflab.diffusion.samplers.config", base="difflab.config.sampler:SamplerBase")
"""How samples are generated. Builders: (config) -> `Sampler`."""

NETWORKS = Registry(
    "network",
    "difflab.networks.config",
    "difflab.networks.towers.config",
    "difflab.networks.autoencoder.config",
    base="difflab.config.network:NetworkBase",
)
"""The trained network. Builders: (config, image_size=, learned_variance=) -> `nn.Module` on torch's default device."""

IMAGE_TOWERS = Registry(
    "network/image", "difflab.networks.towers.config", base="difflab.networks.towers.config:ImageTowerBase"
)
"""What embeds images. Builders: (config, image_size=, channels=, activation=, dim=) -> `ViT` or alike."""

TEXT_TOWERS = Registry(
    "network/text", "difflab.networks.towers.config", base="difflab.networks.towers.config:TextTowerBase"
)
"""What embeds texts. Builders: (config, activation=, dim=) -> `TextTransformer` or alike."""

TEXT_ENCODERS = Registry(
    "text_encoder",
    "difflab.networks.text_encoders.config",
    base="difflab.networks.text_encoders.config:TextEncoderBase",
)
"""What encodes captions, frozen. Builders: (config) -> `Frozen` with a `TextEncoder`."""

REGULARIZERS = Registry(
    "network/regularizer",
    "difflab.networks.autoencoder.config",
    base="difflab.networks.autoencoder.config:RegularizerBase",
)
"""What keeps latents of an autoencoder small. Builders: (config, channels=) -> `Regularizer`."""

PERCEPTUAL = Registry(
    "perceptual",
    "difflab.networks.perceptual.config",
    base="difflab.networks.perceptual.config:PerceptualBase",
)
"""How reconstructions are compared besides their pixels. Builders: (config) -> `PerceptualDistance` or None."""

TOKENIZERS = Registry("tokenizer", "difflab.text.config", base="difflab.text.config:TokenizerBase")
"""How texts become token ids. Builders: (config) -> `Tokenizer`."""

DIFFUSIONS = Registry(
    "diffusion", "difflab.diffusion.config", base="difflab.config.diffusion:DiffusionBase", default="discrete"
)
"""The forward process. Builders: (config) -> `Process`."""

SCHEDULES = Registry(
    "diffusion/schedule", "difflab.diffusion.config", base="difflab.config.diffusion:ScheduleBase", words=True
)
"""The betas of a discrete process. Builders: (timesteps, **options) -> float64 [T]."""

TIMESTEP_SAMPLINGS = Registry(
    "diffusion/timestep_sampling",
    "difflab.diffusion.config",
    base="difflab.config.diffusion:TimestepSamplingBase",
    words=True,
)
"""Which timesteps of a discrete process are trained on. Builders: (config, process) -> `TimestepSampler`."""

SIGMA_DISTRIBUTIONS = Registry(
    "diffusion/sigma_distribution",
    "difflab.diffusion.config",
    base="difflab.config.diffusion:SigmaDistributionBase",
    words=True,
)
"""Which noise levels are trained on in continuous time. Builders: (**options) -> `SigmaDistribution`."""

WEIGHTINGS = Registry(
    "diffusion/weighting",
    "difflab.config.diffusion",
    "difflab.diffusion.config",
    base="difflab.config.diffusion:WeightingBase",
    words=True,
)
"""The weight of each noise level in the squared error. Builders: (config, process) -> `LossWeighting` or None."""

PREDICTIONS = Names("prediction", "difflab.diffusion.config")
"""What a diffusion network predicts. Builders: (sigma_data) -> `Prediction`."""

GUIDANCE = Registry("guidance", "difflab.diffusion.guidance.config", base="difflab.config.guidance:GuidanceBase")
"""How predictions are guided. Builders: (options, `GuidanceParts`) -> `Guidance`s in the order they are applied."""

METRICS = Registry("metrics", "difflab.metrics.config", base="difflab.config.metrics:MetricBase")
"""What is measured on samples. Builders: (config, name) -> `Metric`."""

CALLBACKS = Parts("callbacks", "difflab.callbacks.config")
"""What runs alongside training. Builders: (config, `CallbackContext`) -> one or several Lightning callbacks."""

LOGGERS = Parts("logger", "difflab.tracking.config")
"""Where metrics are logged. Builders: (config, `LoggerContext`) -> a context with a Lightning logger, or None."""

SOURCES = Registry(
    "source",
    "difflab.data.sources.shapes.config",
    "difflab.data.sources.folder.config",
    "difflab.data.sources.drawings.config",
    base="difflab.config.source:SourceConfig",
)
"""What `difflab data make` makes shards from. Builders: (config) -> {split: `Source`}, for non-empty splits."""

ENCODERS = Registry(
    "encoder", "difflab.pipelines.encoders.config", base="difflab.config.encoder:EncoderConfig", default="clip"
)
"""What `difflab data encode` computes fields with. Builders: (config, device, autocast dtype or None) -> `Encoder`."""

AXES = (
    CONDITIONERS,
    DEGRADATIONS,
    SAMPLERS,
    NETWORKS,
    IMAGE_TOWERS,
    TEXT_TOWERS,
    TEXT_ENCODERS,
    REGULARIZERS,
    PERCEPTUAL,
    TOKENIZERS,
    DIFFUSIONS,
    SCHEDULES,
    TIMESTEP_SAMPLINGS,
    SIGMA_DISTRIBUTIONS,
    WEIGHTINGS,
    GUIDANCE,
    METRICS,
)
"""The axes of which a configuration has one choice, or several under names of its own."""
PARTS = (CALLBACKS, LOGGERS)
"""The axes of which a configuration has several choices, each under its own name."""
UNFILED = (SOURCES, ENCODERS)
"""The axes that are chosen on the command line only."""
RESAMPLINGS = Names("resample", "difflab.networks.config")
"""How a U-Net halves and doubles its resolution: a `difflab.networks.resampling.Resampling` each."""

TIME_EMBEDDINGS = Names("time_embedding", "difflab.networks.config")
"""How networks embed time: functions, (time [B], channels) -> float32 [B, channels]."""

INITIALISATIONS = Names("init", "difflab.networks.config")
"""How weights are initialized: in-place functions of (a convolution or linear layer, whether it is an output layer)."""

POOLS = Names("pool", "difflab.networks.config")
"""How features become logits: functions, `difflab.networks.pools.Features` -> the specification of a module."""

NAMES = (PREDICTIONS, RESAMPLINGS, TIME_EMBEDDINGS, INITIALISATIONS, POOLS)
"""The axes whose choices are words without options."""


def every_choice() -> Iterator[tuple[str, str, str]]:
    """Yields (axis, name, top-level package) of every choice."""
    from difflab.config.task import TASKS

    yield from ((TASKS.group, name, task.package) for name, task in TASKS.items())
    for axis in (*AXES, *PARTS, *UNFILED):
        yield from ((axis.group, name, kind.package) for name, kind in axis.items())
    for names in NAMES:
        yield from ((names.what, name, names.package(name)) for name in names)


def builders_of(package: str) -> Iterator[tuple[str, str, str]]:
    """Yields (axis, name, builder) of every choice of a top-level package, except tasks."""
    for axis in (*AXES, *PARTS, *UNFILED):
        yield from ((axis.group, name, kind.builder) for name, kind in axis.items() if kind.package == package)
    for names in NAMES:
        yield from ((names.what, name, names[name]) for name in names if names.package(name) == package)
