"""Metrics of the latents of an autoencoder: how its codebook is used, and how far they are from standard normal."""

from __future__ import annotations

import math

from difflab.config.metrics import MetricBase
from difflab.metrics.base import Metric, Samples
from difflab.metrics.protocol import Result
from difflab.networks.autoencoder.quantizer import usage_of_counts


class Codebook(Metric[MetricBase]):
    """`codebook-perplexity` and `codebook-used`, over all images."""

    keeps = frozenset({"latents"})

    def unsuited_latents(self, codes: int | None, diverge: bool) -> str | None:
        return "counts the codes of a codebook, and this autoencoder has none" if codes is None else None

    def results(self, samples: Samples) -> list[Result]:
        assert samples.latents is not None
        counts = samples.latents.counts
        assert counts is not None, "there is a codebook"
        found, parameters = usage_of_counts(counts), {"codes": len(counts)}
        used = int(found.used)
        details = {"used": used, "places": int(counts.sum())}
        return [
            samples.result("codebook-perplexity", float(found.perplexity), parameters, details=details),
            samples.result("codebook-used", used / len(counts), parameters, details=details),
        ]


class KL(Metric[MetricBase]):
    """`kl`, the mean over the images, with its standard error."""

    keeps = frozenset({"latents"})

    def unsuited_latents(self, codes: int | None, diverge: bool) -> str | None:
        why = "is the divergence of a distribution, and the latents of this autoencoder have none"
        return None if diverge else why

    def results(self, samples: Samples) -> list[Result]:
        assert samples.latents is not None
        kl = samples.latents.kl
        error = float(kl.std()) / math.sqrt(len(kl)) if len(kl) > 1 else None
        return [samples.result("kl", float(kl.mean()), spread=error)]
