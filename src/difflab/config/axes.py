"""The axes on which a paper is a choice: a registry each, which difflab's own folders and plugins fill."""

from __future__ import annotations

from difflab.config.registry import Names, Registry

CONDITIONERS = Registry("conditioning", "difflab.conditioning.config")
"""What a model is told besides x and time. Builders: (config, embedding_dim=, image_size=) -> `Conditioner`."""


SAMPLERS = Registry("sampler", "difflab.diffusion.samplers.config")
"""How samples are drawn. Builders: (config) -> `Sampler`."""

NETWORKS = Registry("network", "difflab.networks.config")
"""What is trained. Builders: (config, image_size=, learned_variance=) -> `nn.Module` on torch's default device."""

DIFFUSIONS = Registry("diffusion", "difflab.diffusion.config", default="discrete")
"""The forward process. Builders: (config) -> `Process`."""

SCHEDULES = Registry("diffusion/schedule", "difflab.diffusion.config", words=True)
"""The betas of a table. Builders: (timesteps, **options) -> float64 [T]."""

TIMESTEP_SAMPLINGS = Registry("diffusion/timestep_sampling", "difflab.diffusion.config", words=True)
"""Which rows of a table are trained on. Builders: (config, process) -> `TimestepSampler`."""

SIGMA_DISTRIBUTIONS = Registry("diffusion/sigma_distribution", "difflab.diffusion.config", words=True)
"""Which noise levels are trained on in continuous time. Builders: (**options) -> `SigmaDistribution`."""

WEIGHTINGS = Registry("diffusion/weighting", "difflab.diffusion.config", words=True)
"""How much each noise level counts in the squared error. Builders: (config, process) -> `LossWeighting` or None."""

PREDICTIONS = Names("prediction", "difflab.diffusion.config")
"""What a diffusion network regresses. Builders: (sigma_data) -> `Prediction`."""

METRICS = Registry("metrics", "difflab.metrics.config")
"""What is measured on samples. Builders: (config, name) -> `Metric`."""

SOURCES = Registry(
    "source",
    "difflab.data.sources.shapes.config",
    "difflab.data.sources.folder.config",
    "difflab.data.sources.drawings.config",
)
"""What `difflab data make` makes shards from. Builders: (config) -> {split: `Source`}, of splits that hold samples."""

AXES = (
    CONDITIONERS,
    SAMPLERS,
    NETWORKS,
    DIFFUSIONS,
    SCHEDULES,
    TIMESTEP_SAMPLINGS,
    SIGMA_DISTRIBUTIONS,
    WEIGHTINGS,
    METRICS,
)
"""All that are chosen by files."""
UNFILED = (SOURCES,)
"""All that are chosen on a command line alone."""
NAMES = (PREDICTIONS,)
"""All that are words without options."""
