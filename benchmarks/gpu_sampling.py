"""Drawing on a GPU beside diffusers, and what `auto` chooses against the best way found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from benchmarks.devices import TIE, Way, auto_training, sampling_step, training_step
from benchmarks.drawers import Drawing, default_way, fill_zero_layers
from benchmarks.gpu_cases import AGAINST_DIFFUSERS, AGAINST_EAGER_DIFFUSERS, CIFAR10, Case, Scale
from benchmarks.gpu_rates import flops_per_image, utilisation
from benchmarks.gpu_report import Goal, Report, start_afresh
from benchmarks.memory import PeakWatch
from benchmarks.pairs import Rounds, Step, clocked, interleave
from benchmarks.peer import diffusers_model
from benchmarks.stage import Stage, synchroniser
from benchmarks.switches import deterministic

MODES = ("reduce-overhead", "max-autotune-no-cudagraphs")
"""Of torch.compile, besides its default; the last tries every kernel that it could write."""

AUTOTUNING = 60.0
"""Seconds below which the last of them is not begun."""


def draw(case: Case, args: Scale, report: Report) -> None:
    """All figures of drawing with one network, from drawn weights."""
    with case.stage(args, with_shards=False) as stage, deterministic(False):
        torch.manual_seed(0)
        model = stage.model()
        fill_zero_layers(model.network)
        model.as_module().eval().requires_grad_(False)
        drawing = Drawing(model, stage.accelerator, args.steps, 4 if args.tiny else case.drawn, scale=1.0)
        default = default_way(stage.accelerator)
        compiled = replace(default, compile=True)
        drawers: dict[str, Callable[[], Step]] = {
            "difflab": lambda: drawing.ours(default),
            "diffusers eager": lambda: drawing.theirs(default, diffusers_model(model)),
        }
        if stage.settings()["compile"] or args.tiny:
            drawers["difflab compiled"] = lambda: drawing.ours(compiled)
            drawers["diffusers compiled"] = lambda: drawing.theirs(compiled, diffusers_model(model))
        steps = begun("drawing", drawers, drawing.batch, stage, report)
        rounds = in_turn(steps, stage, args, report)
        _tell_of_drawing(rounds, drawing, flops_per_image(stage, training=False), report)


def _tell_of_drawing(rounds: Rounds, drawing: Drawing, flops: int, report: Report) -> None:
    for name in rounds.names():
        rate = drawing.batch / rounds.time_of(name).median
        tflops = rate * flops * drawing.steps / 1e12
        report.figure(
            f"drawing, {name}",
            rate,
            f"images/s at {drawing.steps} DDIM steps",
            reached=f"{tflops:.3g} TFLOP/s, {utilisation(tflops, report.facts.get('gpu'))}",
            tflops=tflops,
            batch=drawing.batch,
        )
    pairs = [
        ("difflab", "diffusers eager", AGAINST_EAGER_DIFFUSERS),
        ("difflab compiled", "diffusers eager", AGAINST_EAGER_DIFFUSERS),
        ("difflab compiled", "diffusers compiled", AGAINST_DIFFUSERS),
    ]
    for ours, theirs, goal in pairs:
        if {ours, theirs} <= set(rounds.names()):
            report.figure(f"drawing, {ours}, speed / {theirs}'s", rounds.ratio(theirs, ours).median, "", goal)


# -- what auto chooses ------------------------------------------------------------------------------------------------


def best_found(args: Scale, report: Report) -> None:
    """On CIFAR-10's network, whose steps are short: the switches of `auto`, one after the other."""
    with CIFAR10.stage(args) as stage:
        auto = auto_training(stage.accelerator)
        _judge("training", auto, ways_to_train(auto), training_step, stage, args, report)
        start_afresh()
        default = default_way(stage.accelerator)
        _judge("drawing", default, ways_to_draw(default), sampling_step, stage, args, report)


def ways_to_train(auto: Way) -> list[Way]:
    """auto, each of its switches turned, and further modes of the compiler: what is quick to begin comes first."""
    fast = replace(auto, compile=True)
    turned = [replace(auto, channels_last=not auto.channels_last), replace(auto, compile=not auto.compile), Way()]
    others = [replace(auto, deterministic=True), *(replace(fast, mode=mode) for mode in MODES)]
    return sorted(dict.fromkeys([auto, *turned, *others]), key=lambda way: way.compile)


def ways_to_draw(auto: Way) -> list[Way]:
    """The same without gradients, which are what the deterministic algorithms are for."""
    return [way for way in ways_to_train(auto) if not way.deterministic]


def _judge(
    what: str,
    auto: Way,
    ways: list[Way],
    make: Callable[[Stage, Way], Step],
    stage: Stage,
    args: Scale,
    report: Report,
) -> None:
    batch = stage.config.data.batch_size
    makers = {str(way): lambda way=way: way.within(make(stage, way)) for way in ways}
    slow = {str(way) for way in ways if way.mode == MODES[-1]}
    rounds = in_turn(begun(f"auto, {what}", makers, batch, stage, report, slow=slow), stage, args, report)
    for name in rounds.names():
        report.figure(f"auto, {what}, {name}", batch / rounds.time_of(name).median, "images/s")
    # Determinism is not chosen for speed.
    speeds = {name: rounds.time_of(name).median for name in rounds.names() if "deterministic" not in name}
    if str(auto) in speeds:
        fastest = min(speeds, key=speeds.__getitem__)
        behind = rounds.ratio(str(auto), fastest).median
        text = f"auto is {auto}, the fastest is {fastest}"
        report.figure(f"auto, {what}, time / the fastest's", behind, "", Goal(TIE, False), text=text)


# -- contenders -------------------------------------------------------------------------------------------------------


def begun(
    what: str,
    makers: Mapping[str, Callable[[], Step]],
    images: int,
    stage: Stage,
    report: Report,
    slow: set[str] | None = None,
) -> dict[str, Step]:
    """What could be built and run twice, each with its peak memory; nothing is begun in the last third of the time."""
    enough, steps = report.deadline(2 / 3), dict[str, Step]()
    for name, make in makers.items():
        title = f"{what}, {name}"
        if enough():
            report.left_out(title, "the time for it is over")
            continue
        needs = AUTOTUNING if slow and name in slow else 0.0
        step = report.attempt(
            title, lambda make=make, title=title: _warmed(make(), title, images, stage, report), needs=needs
        )
        if step is not None:
            steps[name] = step
    return steps


def _warmed(step: Step, title: str, images: int, stage: Stage, report: Report) -> Step:
    """The step after two of it; the second is told of in case that nothing follows."""
    synchronise = synchroniser(stage.device)
    first = clocked(step, synchronise).wall
    watch = PeakWatch(stage.device)
    second = clocked(step, synchronise).wall
    compiling, memory = first - second, watch.seen()
    text = f"the first time {compiling:.3g} s more, peak memory {memory.peak / 1e3:.3g} GB"
    more = {"compiling_s": compiling, "peak_gb": memory.peak / 1e3}
    report.figure(f"{title}, alone", images / second, "images/s", text=text, **more)
    return step


def in_turn(steps: Mapping[str, Step], stage: Stage, args: Scale, report: Report) -> Rounds:
    """As many rounds as there is time for."""
    if not steps:
        return Rounds()
    return interleave(
        steps,
        rounds=args.rounds,
        warmup=0,
        synchronise=synchroniser(stage.device),
        enough=report.deadline(0.8),
    )
