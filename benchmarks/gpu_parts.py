"""The parts of the GPU's benchmark, each as its own process runs it."""

from __future__ import annotations

import warnings

import torch

from benchmarks.gpu_cases import ADM64, ADM256, CIFAR10, Case, Scale
from benchmarks.gpu_latent import SD256, SD512, train_latents
from benchmarks.gpu_loading import load
from benchmarks.gpu_numerics import numerics
from benchmarks.gpu_report import Report, start_afresh
from benchmarks.gpu_sampling import best_found, draw
from benchmarks.gpu_training import start_again, train
from benchmarks.machine import describe_machine, machine_lines
from difflab.devices import Accelerator
from difflab.errors import UserError

SPARSE = ("cpu", "cores", "gpu", "torch", "python")
"""What of the machine stands in every record."""

AGAIN = 25.0
"""Seconds that a second process takes to import, compile from the cache, and train three steps."""


def run_part(report: Report, *, tiny: bool, batch: int | None) -> None:
    """All figures of the report's part.

    Raises UserError where there is no GPU and none is meant to be simulated.
    """
    warnings.filterwarnings("ignore", message=r".*(deterministic|lr_scheduler|tensor cores|TF32).*")
    if not tiny and not torch.cuda.is_available():
        raise UserError("torch finds no GPU here; --tiny runs every part on the CPU, with tiny sizes")
    args = Scale(tiny, batch)
    accelerator: Accelerator = "cpu" if tiny else "cuda"
    machine = describe_machine()
    report.facts |= {key: machine[key] for key in SPARSE if key in machine}
    if accelerator == "cuda":
        # As training and drawing do it.
        torch.set_float32_matmul_precision("high")
    if report.part == "numerics":
        report.note("machine", "; ".join(machine_lines(machine)))
        numerics(args, report, accelerator)
    elif report.part == "auto":
        report.attempt("auto", lambda: best_found(args, report))
    elif report.part == "loader":
        load(args, report, accelerator)
    elif report.part in (latent := {case.name: case for case in (SD256, SD512)}):
        train_latents(latent[report.part], args, report, accelerator)
    else:
        case = {case.name: case for case in (ADM64, CIFAR10, ADM256)}[report.part]
        train_and_draw(case, args, report)


def train_and_draw(case: Case, args: Scale, report: Report) -> None:
    """One network: training, drawing, and for the smallest what a second start costs."""
    report.attempt("training", lambda: train(case, args, report))
    start_afresh()
    report.attempt("drawing", lambda: draw(case, args, report))
    start_afresh()
    if case is CIFAR10:
        report.attempt("second start", lambda: start_again(case, args, report), needs=AGAIN)
