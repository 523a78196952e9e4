"""The axes on which a paper is a choice: a registry each, which difflab's own folders and plugins fill."""

from __future__ import annotations

from difflab.config.registry import Registry

CONDITIONERS = Registry("conditioning", "difflab.conditioning.config")
"""What a model is told besides x and time. Builders: (config, embedding_dim=, image_size=) -> `Conditioner`."""


SAMPLERS = Registry("sampler", "difflab.diffusion.samplers.config")
"""How samples are drawn. Builders: (config) -> `Sampler`."""

NETWORKS = Registry("network", "difflab.networks.config")
"""What is trained. Builders: (config, image_size=, learned_variance=) -> `nn.Module` on torch's default device."""

METRICS = Registry("metrics", "difflab.metrics.config")
"""What is measured on samples. Builders: (config, name) -> `Metric`."""

AXES = (CONDITIONERS, SAMPLERS, NETWORKS, METRICS)
"""All that there are."""
