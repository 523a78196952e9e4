"""`difflab likelihood`: bits per dimension of real images under a stored run, with the record of their protocol."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflab import jsonl
from difflab.commands.hydra_app import run_app
from difflab.commands.run_defaults import with_defaults_of_run
from difflab.config.likelihood import LikelihoodConfig
from difflab.console import say
from difflab.data.shard_names import as_word
from difflab.errors import UserError

if TYPE_CHECKING:
    from difflab.commands.processes import Processes
    from difflab.config.data import DataConfig
    from difflab.metrics.likelihood import Likelihood
    from difflab.metrics.protocol import Result
    from difflab.metrics.reference import DataReference
    from difflab.pipelines.likelihood import LikelihoodPipeline
    from difflab.pipelines.stored import Stored
    from difflab.tracking.rundir import RunDirectory

METRIC = "bpd"
CHANGES_NUMBERS = ("method", "data", "seed", "weights", "precision")
"""Keys, besides the split and n, that make it another likelihood."""


def main(argv: Sequence[str]) -> int:
    refuse_guidance(argv)
    run_app("likelihood", LikelihoodConfig, with_defaults_of_run(argv, data=True, drawing=False), likelihood)
    return 0


def refuse_guidance(argv: Sequence[str]) -> None:
    """Raises UserError for what only drawing has."""
    for argument in argv:
        key = argument.partition("=")[0].lstrip("+~")
        if re.split(r"[./@]", key)[0] in ("guidance", "sampler", "pipeline"):
            raise UserError(
                f"{argument}: a likelihood is the model's own, without guidance or a sampler; leave {key} out"
            )


def likelihood(config: LikelihoodConfig, plain: dict[str, Any], overrides: list[str]) -> None:
    """Find the bits per dimension of n images, print them and keep the record."""
    from difflab.commands.limits import refuse_unwritable
    from difflab.commands.processes import started
    from difflab.devices import resolve_accelerator

    refuse_unwritable(config.out, config.logger)
    accelerator = resolve_accelerator(config.accelerator)
    with started(config.devices, accelerator, config.ranks) as processes:
        with processes.agreeing():
            pipeline, stored, images = prepare(config, accelerator, processes)
        processes.take(folder_of(config, stored).path, "is being measured into")
        try:
            found = measure(config, pipeline, images, processes)
        except KeyboardInterrupt as stop:
            stop.add_note("nothing is kept of an unfinished likelihood; the same command starts over")
            raise
        if processes.is_main:
            result = result_of(config, pipeline, stored, images, found)
            keep(config, plain, overrides, stored, pipeline, found, result)


def prepare(
    config: LikelihoodConfig, accelerator: Any, processes: Processes
) -> tuple[LikelihoodPipeline, Stored, DataReference]:
    """The model on the device of this process, and the images. Raises UserError where they do not fit."""
    import torch

    from difflab.commands.drawing import models_on
    from difflab.devices import sampling_autocast
    from difflab.metrics.reference import shards_reference
    from difflab.pipelines.likelihood import LikelihoodPipeline, require_likelihood
    from difflab.pipelines.stored import find_stored

    assert config.run is not None, "the configuration asks for a run"
    require_likelihood(config.run, find_stored(config.run, "auto").config)
    models = models_on(accelerator)
    if accelerator == "cuda" and config.precision == "32-true":
        # Drawing allows TF32, whose error is above the tolerance of an ODE.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    model, stored = models.stored(config.run, config.weights)
    pipeline = LikelihoodPipeline(model, config.method, autocast=sampling_autocast(config.precision, accelerator))
    data = data_of(config, stored)
    pipeline.check_data(data)
    fields = list(dict.fromkeys([*data.fields, *model.conditioners.missing(["image"])]))
    data = data.model_copy(update={"fields": fields})
    size = config.batch_size * processes.world_size
    images = shards_reference(data, config.split, batch_size=size, rank=processes.rank, world_size=processes.world_size)
    if config.n > images.total:
        raise UserError(
            f"n={config.n}, but the split {config.split} of {images.name} has {images.total} images: "
            f"give n={images.total} or less, or another split"
        )
    return pipeline, stored, images


def data_of(config: LikelihoodConfig, stored: Stored) -> DataConfig:
    """The data set whose images are measured."""
    data = config.data or (None if stored.train is None else stored.train.data)
    if data is None:
        raise UserError(
            f"run={config.run} does not say on which images it was trained: give some, as in data=shards data.path=... "
            "data.image_size=... data.batch_size=1"
        )
    return data


def measure(
    config: LikelihoodConfig, pipeline: LikelihoodPipeline, images: DataReference, processes: Processes
) -> Likelihood:
    """The likelihoods of all images, of which each process finds its share."""
    from difflab.commands.limits import refusing_too_large
    from difflab.metrics.likelihood import LikelihoodTally
    from difflab.progress import track

    tally = LikelihoodTally(pipeline.steps)
    batches = images.batches(config.n)
    size = config.batch_size * processes.world_size
    what = f"likelihood of {config.n} images, batches of {size}"
    with processes.agreeing(), refusing_too_large(f"batch_size={config.batch_size}"):
        for batch in track(batches, -(-config.n // size), what) if processes.is_main else batches:
            kept = rows_of(batch, batch["weight"] > 0)
            if len(kept["index"]):
                tally.add(kept["index"], pipeline(kept, config.seed))
    return tally.over_ranks()


def rows_of(batch: dict[str, Any], chosen: Any) -> dict[str, Any]:
    """The rows of a batch that are no padding."""
    import torch

    kept = chosen.nonzero()[:, 0].tolist()
    return {
        key: value[chosen] if isinstance(value, torch.Tensor) else [value[row] for row in kept]
        for key, value in batch.items()
    }


def result_of(
    config: LikelihoodConfig, pipeline: LikelihoodPipeline, stored: Stored, images: DataReference, found: Likelihood
) -> Result:
    """The number with its protocol."""
    from difflab.files import sha256_of
    from difflab.metrics.protocol import Protocol, ReferenceRecord, Result, software_versions

    evaluations = found.evaluations
    n = len(found.total)
    parameters: dict[str, Any] = {
        "method": pipeline.record(),
        "dequantisation": "uniform" if config.method.kind == "ode" else "none",
        "seed": config.seed,
        "weights": stored.which,
        "precision": "float32" if pipeline.autocast is None else str(pipeline.autocast).removeprefix("torch."),
        "device": pipeline.device.type,
        "told": list(pipeline.model.conditioners),
    }
    details: dict[str, Any] = {
        "spread": "standard error of the mean over the images",
        "prior": float(found.prior.mean()),
        "evaluations": {
            "mean": float(evaluations.mean()),
            "min": int(evaluations.min()),
            "max": int(evaluations.max()),
        },
        "weights_sha256": sha256_of(stored.weights),
    }
    if config.method.kind == "ode" and config.method.probes > 1:
        details["probe_standard_error"] = found.probe_error
    reference = ReferenceRecord(
        name=images.name,
        content_hash=images.content_hash,
        split=images.split,
        preparation=images.preparation,
        n=n,
    )
    missing = config.n - n
    return Result(
        metric=METRIC,
        value=found.mean,
        spread=found.standard_error,
        protocol=Protocol(
            metric=METRIC,
            n=n,
            parameters=parameters,
            reference=reference,
            label=f"{config.method.kind}-{as_word(config.split)}",
            versions=software_versions(),
        ),
        details=details,
        warnings=[f"{missing} of {config.n} images could not be read and are left out"] if missing else [],
    )


def keep(
    config: LikelihoodConfig,
    plain: dict[str, Any],
    overrides: list[str],
    stored: Stored,
    pipeline: LikelihoodPipeline,
    found: Likelihood,
    result: Result,
) -> None:
    """Write the record and its files, log the number, and say it."""
    from difflab.files import write_text
    from difflab.metrics.naming import distinct_names
    from difflab.tracking.build import build_loggers
    from difflab.tracking.job import Job
    from difflab.tracking.terms import plot_terms, write_images, write_terms

    out = folder_of(config, stored)
    (name,) = distinct_names([json.loads(result.to_json())], jsonl.read(out.evaluations))
    out.write_records(plain, overrides)
    logged = {**plain, "model": stored.config.model_dump(mode="json"), "protocol": result.protocol.measured()}
    job = Job.measuring("likelihood", stored, out, identity=result.protocol.measured())
    with build_loggers(config.logger, out, logged, job) as loggers:
        for logger in loggers:
            logger.log_metrics({f"eval/{name}": result.value}, step=0)
        write_images(found, out.path / "images.csv")
        if found.terms is not None:
            write_terms(found.terms, pipeline.noises, out.path / "terms.csv")
            plot_terms(found.terms, out.path / "terms.svg")
            log_picture(loggers, "eval/bpd_terms", out.path / "terms.png")
    write_text(out.path / "likelihood.json", json.dumps(json.loads(result.to_json()), indent=2) + "\n")
    for path in dict.fromkeys([out.evaluations, stored.home / "evaluations.jsonl"]):
        jsonl.append(path, [result.to_json()])
    show(result, out.path)


def log_picture(loggers: Sequence[Any], key: str, path: Path) -> None:
    """Show a picture where loggers show some."""
    from PIL import Image

    from difflab.tracking.clock import ClockedLogger

    for logger in loggers:
        if isinstance(logger, ClockedLogger):
            logger.log_image(key, Image.open(path))


def folder_of(config: LikelihoodConfig, stored: Stored) -> RunDirectory:
    """Where the records go: the last part of the usual name is of all that changes the numbers."""
    from difflab.tracking.rundir import RunDirectory

    how = config.model_dump(mode="json", include=set(CHANGES_NUMBERS))
    if stored.path.is_file():
        how["checkpoint"] = stored.path.name
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
    name = f"{config.method.kind}-{as_word(config.split)}-n{config.n}-{digest[:6]}"
    return RunDirectory(config.out or stored.home / "likelihood" / name)


def show(result: Result, out: Path) -> None:
    """The number with its standard error, and where the records lie."""
    details = result.details
    spread = "" if result.spread is None else f" ± {result.spread:.2g}"
    evaluations: Any = details["evaluations"]
    say(
        f"{result.name}: {result.value:.4f}{spread} bits/dim (prior {details['prior']:.4g}, "
        f"{evaluations['mean']:.4g} network evaluations an image, protocol {result.protocol.hash})"
    )
    for warning in result.warnings:
        say(f"note: {warning}")
    say(f"records in {out}")
