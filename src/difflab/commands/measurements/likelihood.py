"""Bits per dimension of real images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from difflab.commands.command import Machine
from difflab.commands.measurements.images import ImagesMeasurement, log_picture
from difflab.commands.measurements.measuring import Measuring
from difflab.config.likelihood import LikelihoodConfig
from difflab.metrics.likelihood import Likelihood, LikelihoodTally
from difflab.metrics.protocol import Result
from difflab.pipelines.likelihood import LikelihoodPipeline
from difflab.tasks.build import NoisedModel
from difflab.tracking.rundir import RunDirectory
from difflab.tracking.terms import plot_terms, write_images, write_terms
from difflab.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

METRIC = "bpd"


class LikelihoodMeasurement(ImagesMeasurement[LikelihoodConfig]):
    """The likelihood of images under a generative model, each with its conditioning as in training."""

    kind = "likelihood"
    what = "likelihood"
    method = ("method",)

    pipeline: LikelihoodPipeline
    likelihood: Likelihood

    def begin(self) -> None:
        assert isinstance(self.model, NoisedModel), "models with a likelihood take noised images"
        self.pipeline = LikelihoodPipeline(
            self.model, self.config.method, autocast=self.autocast, compilation=self.compilation
        )
        self.tally = LikelihoodTally(self.pipeline.steps)

    def reads(self) -> Sequence[str]:
        return self.model.conditioners.missing(["image"])

    @property
    def label(self) -> str:
        return f"{self.config.method.kind}-{super().label}"

    def add(self, batch: Batch) -> None:
        self.tally.add(batch["index"], self.pipeline(batch, self.config.seed))

    def found(self) -> list[Result]:
        found = self.likelihood = self.tally.over_ranks()
        method, evaluations = self.config.method, found.evaluations
        details: dict[str, Any] = {
            "prior": float(found.prior.mean()),
            "evaluations": {
                "mean": float(evaluations.mean()),
                "min": int(evaluations.min()),
                "max": int(evaluations.max()),
            },
        }
        if method.kind == "ode" and method.probes > 1:
            details["probe_standard_error"] = found.probe_error
        parameters = {
            "method": self.pipeline.record(),
            "dequantisation": "uniform" if method.kind == "ode" else "none",
            "conditioning": list(self.model.conditioners),
        }
        return [self.result(METRIC, found.mean, found.standard_error, len(found.total), parameters, details)]

    def write(self, out: RunDirectory, loggers: Sequence[Logger]) -> None:
        """Writes `images.csv`, and the terms of the bound as `terms.csv`, `terms.svg` and `terms.png`."""
        write_images(self.likelihood, out.path / "images.csv")
        terms = self.likelihood.terms
        if terms is not None:
            write_terms(terms, self.pipeline.sigmas, out.path / "terms.csv")
            plot_terms(terms, out.path / "terms.svg")
            log_picture(loggers, "eval/bpd_terms", out.path / "terms.png")

    def remarks(self, results: Sequence[Result]) -> list[str]:
        (result,) = results
        evaluations: Any = result.details["evaluations"]
        calls = f"{evaluations['mean']:.4g} network evaluations per image"
        return [f"bits per dimension, of which the prior {result.details['prior']:.4g}; {calls}"]


def likelihood(config: LikelihoodConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """The likelihood of n images. Raises UserError if the model has none, or images are missing."""
    with machine.processes.agreeing():
        return Measuring(LikelihoodMeasurement(config, machine), config, plain, overrides)
