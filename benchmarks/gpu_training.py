"""Training on a GPU: what `difflab train` reaches alone, then beside loops by hand with our network and diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import lightning as L

from benchmarks.devices import Way
from benchmarks.gpu_cases import AGAINST_DIFFUSERS, AGAINST_EAGER_DIFFUSERS, Case, Scale
from benchmarks.gpu_rates import flops_per_image, utilisation
from benchmarks.gpu_report import Goal, Report
from benchmarks.memory import Memory, PeakWatch, in_own_process
from benchmarks.pairs import Lap, Spread, Step, clocked
from benchmarks.peer import OwnNetwork, PeerNetwork, diffusers_model
from benchmarks.stage import Stage, synchroniser
from benchmarks.switches import deterministic
from benchmarks.train_step import (
    DATA_WAIT,
    FRAMEWORK_TAX,
    QUIET_END,
    Pauses,
    bare_loop,
    copy_of,
    train_with,
)
from difflab.devices import deterministic_mode
from difflab.tasks.denoising.module import DenoisingModule

ALONE = 3
"""Blocks of difflab's steps before anybody else begins; their figure is the first."""

SHARE = 0.8
"""Of a part's time: the rest is for drawing."""

BARE, EAGER, COMPILED = "bare loop", "diffusers eager", "diffusers compiled"


def train(case: Case, args: Scale, report: Report) -> None:
    """All figures of training one network."""
    blocks = 1 + ALONE + args.rounds
    steps = f"trainer.max_steps={blocks * args.block(case)}"
    with case.stage(args, steps, *QUIET_END, "callbacks.checkpoint.on_exception=false") as stage:
        report.note("training", stage.headline())
        enough = report.deadline(SHARE)

        def begin(module: DenoisingModule) -> Beside:
            return Beside(stage, module, case, report, enough, block=args.block(case))

        train_with(stage, begin)


class Beside(Pauses):
    """Phases, a block of steps each: the first step (which compiles), difflab alone, everybody in turn.

    enough: asked before anything new is begun.
    """

    def __init__(
        self,
        stage: Stage,
        module: DenoisingModule,
        case: Case,
        report: Report,
        enough: Callable[[], bool],
        *,
        block: int,
    ) -> None:
        super().__init__({}, synchroniser(stage.device), warmup=1 + ALONE, block=block)
        self._stage, self._module, self._case, self._report, self._enough = stage, module, case, report, enough
        self._alone: list[Lap] = []
        self._flops = flops_per_image(stage, training=True)
        self._memory: PeakWatch | None = None

    def pause(self, trainer: L.Trainer, own: Lap) -> None:
        if self._number <= ALONE:
            self._alone.append(own)
            self.waits.append(self.waited(own))
            if self._number == ALONE - 1:
                self._memory = PeakWatch(self._stage.device)
            if self._number == ALONE:
                self._tell_of_difflab()
                self._admit_others()
            return
        super().pause(trainer, own)
        if self._enough() and len(self.rounds.laps) > 1:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._compare()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._compare()

    # -- figures ------------------------------------------------------------------------------------------------------

    def _tell_of_difflab(self) -> None:
        first, *others = (lap.wall for lap in self._alone)
        median = Spread.of(others).median
        report = self._report
        self._tell_of_speed("training alone, difflab", median, self._case.images, self._case.tflops)
        report.figure("training, data wait", Spread.of(self.waits[1:]).median, "of a step", Goal(DATA_WAIT, False))
        assert self._memory is not None
        self._tell_of_memory("difflab", self._memory.seen())
        report.figure("training, first step, with compiling", max(first - median, 0.0) * self.block, "s more than one")

    def _tell_of_speed(self, name: str, seconds: float, images: Goal | None = None, tflops: Goal | None = None) -> None:
        rate = self._stage.config.data.batch_size / seconds
        reached = rate * self._flops / 1e12
        share = utilisation(reached, self._report.facts.get("gpu"))
        self._report.figure(name, rate, "images/s", images, reached=f"{reached:.3g} TFLOP/s, {share}", tflops=reached)
        if tflops is not None:
            self._report.figure(f"{name}, arithmetic", reached, "TFLOP/s", tflops, flops_per_image=self._flops)

    def _tell_of_memory(self, name: str, memory: Memory) -> None:
        self._report.figure(
            f"training, peak memory, {name}",
            memory.peak / 1e3,
            "GB",
            step=f"{(memory.peak - memory.before) / 1e3:.3g} GB of it during the step",
        )

    def _admit_others(self) -> None:
        """Each is built and warmed up on its own: one that fails leaves the others alone."""
        for name, (needs, build) in self._contenders().items():
            # What matters most is the first of them.
            if self._enough() and name != EAGER:
                self._report.left_out(f"training, {name}", "the time for it is over")
                continue
            step = self._report.attempt(
                f"training, {name}", lambda name=name, build=build: self._begun(name, build()), needs=needs
            )
            if step is not None:
                self.others[name] = step

    def _contenders(self) -> dict[str, tuple[float, Callable[[], Step]]]:
        """By name: about how many seconds it takes to begin, and what makes the step."""
        compiling = self._alone[0].wall * self.block
        contenders = {EAGER: (0.0, lambda: self._peer(compiled=False))}
        if self._compiles or self._stage.accelerator == "cpu":
            contenders[COMPILED] = (compiling, lambda: self._peer(compiled=True))
        return {**contenders, BARE: (0.0, self._bare)}

    def _bare(self) -> Step:
        """Our network by hand, with the same algorithms as difflab's step."""
        step = bare_loop(self._stage, self._stage.placed(OwnNetwork(copy_of(self._stage, self._module)))).step

        def alike() -> None:
            with deterministic(self._mode):
                step()

        return alike

    @property
    def _compiles(self) -> bool:
        return self._stage.settings()["compile"]

    @property
    def _mode(self) -> bool | Literal["warn"]:
        return deterministic_mode(self._stage.config.trainer.deterministic, self._stage.accelerator)

    def _peer(self, *, compiled: bool) -> Step:
        peer: PeerNetwork = diffusers_model(copy_of(self._stage, self._module))
        if self._stage.config.network.checkpoint_activations:
            peer.unet.enable_gradient_checkpointing()
        settings = self._stage.settings()
        way = Way(channels_last=settings["channels_last"], compile=compiled)
        return bare_loop(self._stage, way.placed(peer, self._stage.device)).step

    def _begun(self, name: str, step: Step) -> Step:
        """The step after two of it, which compile, and a block, which is told of in case that nothing follows."""
        clocked(step, self.synchronise, 2)
        watch = PeakWatch(self._stage.device)
        self._tell_of_speed(f"training alone, {name}", clocked(step, self.synchronise, self.block).wall)
        self._tell_of_memory(name, watch.seen())
        return step

    def _compare(self) -> None:
        if not self.rounds.laps:
            return
        for name in self.rounds.names():
            self._tell_of_speed(f"training in turn, {name}", self.rounds.time_of(name).median)
        faster = AGAINST_EAGER_DIFFUSERS if self._compiles else AGAINST_DIFFUSERS
        goals = {EAGER: faster, COMPILED: AGAINST_DIFFUSERS}
        for name, goal in goals.items():
            if name in self.rounds.names():
                speed = self.rounds.ratio(name, "difflab")
                self._report.figure(f"training, speed / {name}'s", speed.median, "", goal, spread=_reach(speed))
        if BARE in self.rounds.names():
            tax = self.rounds.ratio("difflab", BARE)
            self._report.figure(
                "training, framework tax", tax.median, "", Goal(FRAMEWORK_TAX, False), spread=_reach(tax)
            )


def _reach(spread: Spread) -> str:
    return f"quartiles {spread.q1:.3f} to {spread.q3:.3f} of {spread.n} rounds"


# -- what a second start costs


def start_again(case: Case, args: Scale, report: Report) -> None:
    """The first step of another process, which finds on the disk what the first one compiled."""
    seconds = in_own_process(first_step_seconds, case, args)
    report.figure("training, first step again, from the cache", seconds, "s more than one")


def first_step_seconds(case: Case, args: Scale) -> float:
    """Of difflab's own training: what the first step takes more than the third."""
    steps = ["trainer.max_steps=3", *QUIET_END]
    with case.stage(args, *steps) as stage:
        laps: list[float] = []

        class Watch(Pauses):
            def pause(self, trainer: L.Trainer, own: Lap) -> None:
                laps.append(own.wall)

        train_with(stage, lambda _: Watch({}, synchroniser(stage.device), warmup=0, block=1))
    return max(laps[0] - laps[-1], 0.0)
