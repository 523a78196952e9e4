"""Training Stable Diffusion 1.5's UNet from latents on a GPU, by hand, beside diffusers' network in the same step.

What Lightning, callbacks and the loader add to a step is in the other parts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from benchmarks.devices import Way, auto_training
from benchmarks.gpu_cases import AGAINST_DIFFUSERS, AGAINST_EAGER_DIFFUSERS, Scale
from benchmarks.gpu_rates import flops_of, utilisation
from benchmarks.gpu_report import Goal, Report, free_memory
from benchmarks.latent_peer import LatentUNet, OurNetwork, TheirNetwork, diffusers_unet, drawn_unet, recomputing
from benchmarks.latent_training import TrainingStep, batches_of
from benchmarks.memory import PeakWatch
from benchmarks.pairs import Rounds, Step, clocked, interleave
from benchmarks.stage import synchroniser
from difflab.devices import Accelerator
from difflab.networks.build import build_network

OURS, RECOMPUTED, COMPILED = "difflab", "difflab, activations recomputed", "difflab compiled"
EAGER = "diffusers eager"
COMPILING = 90.0
"""Seconds below which compiling is not begun."""


@dataclass(frozen=True)
class LatentCase:
    """Stable Diffusion 1.5's network at one size of its images.

    side: places of a latent per side. batch: latents of a step, which fit 80 GiB beside the weights of all contenders.
    block: steps in a row. compiled: whether there is time to compile, too. images: what training should reach a second.
    """

    name: str
    side: int
    batch: int
    block: int
    compiled: bool = False
    images: Goal | None = None

    def network(self, args: Scale) -> LatentUNet:
        """Of v1-inference.yaml; at tiny scale one of the same kind that a CPU trains in no time."""
        if args.tiny:
            return LatentUNet(side=8, base=32, mult=(1, 2), blocks=1, depth=1, heads=2, context=16, tokens=5)
        return LatentUNet(side=self.side, base=320, mult=(1, 2, 4, 4), blocks=2, depth=1, heads=8, context=768)

    def latents(self, args: Scale) -> int:
        """Of a step."""
        return 2 if args.tiny else args.batch or self.batch


SD256 = LatentCase("sd256", side=32, batch=32, block=3, compiled=True, images=Goal(300.0))
SD512 = LatentCase("sd512", side=64, batch=8, block=3)


def train_latents(case: LatentCase, args: Scale, report: Report, accelerator: Accelerator) -> None:
    """First difflab with recomputed activations, alone, which takes the least memory; then all that keep them, alone
    and in turn."""
    training = LatentTraining(case, args, report, accelerator)
    report.note("training", training.headline())
    report.attempt(f"training, {RECOMPUTED}", training.recomputed)
    free_memory()
    training.compare(training.begun_ones())


class LatentTraining:
    """The contenders of one case, all of them in the precision and layout of `auto`."""

    def __init__(self, case: LatentCase, args: Scale, report: Report, accelerator: Accelerator) -> None:
        self.case, self.args, self.report = case, args, report
        self.about, self.batch = case.network(args), case.latents(args)
        self.device = torch.device(accelerator)
        self.synchronise = synchroniser(self.device)
        self.block = 1 if args.tiny else case.block
        self.way = replace(auto_training(accelerator), compile=False)
        self.network = drawn_unet(self.about, self.device)
        self.batches = batches_of(self.about, self.batch, self.device, count=2)
        self.flops = flops_per_latent(self.about)

    def headline(self) -> str:
        """The settings in a line."""
        return f"Stable Diffusion 1.5's UNet, {self.about.in_words()}; {self.batch} latents a step, {self.way}"

    def recomputed(self) -> None:
        """Slower, in less memory: it ends here."""
        self._begun(RECOMPUTED, self._step(OurNetwork(recomputing(self.network, self.about)), self.way))

    def begun_ones(self) -> dict[str, Step]:
        """Those that came to their first figure."""
        makers: dict[str, tuple[float, Callable[[], Step]]] = {
            OURS: (0.0, lambda: self._ours(self.way)),
            EAGER: (0.0, lambda: self._step(TheirNetwork(diffusers_unet(self.network, self.about)), self.way)),
        }
        if self.case.compiled:
            needs = 0.0 if self.args.tiny else COMPILING
            makers[COMPILED] = (needs, lambda: self._ours(replace(self.way, compile=True)))
        found: dict[str, Step] = {}
        for name, (needs, make) in makers.items():
            step = self.report.attempt(
                f"training, {name}", lambda name=name, make=make: self._begun(name, make()), needs=needs
            )
            if step is not None:
                found[name] = step
        return found

    def compare(self, steps: dict[str, Step]) -> None:
        """As many rounds as there is time for, and what they tell."""
        if not steps:
            return
        enough = self.report.deadline(0.9)
        rounds = interleave(
            steps,
            rounds=self.args.rounds,
            warmup=0,
            synchronise=self.synchronise,
            block=self.block,
            enough=enough,
        )
        for name in rounds.names():
            goal = None if name == EAGER else self.case.images
            self._tell_of_speed(f"training in turn, {name}", rounds.time_of(name).median, goal)
        self._tell_of_ratio(rounds, OURS, AGAINST_DIFFUSERS)
        self._tell_of_ratio(rounds, COMPILED, AGAINST_EAGER_DIFFUSERS)

    def _ours(self, way: Way) -> Step:
        return self._step(OurNetwork(copy.deepcopy(self.network)), way)

    def _step(self, network: nn.Module, way: Way) -> Step:
        return TrainingStep(way.placed(network, self.device), self.batches, way.autocast)

    def _begun(self, name: str, step: Step) -> Step:
        """The step after two of it, the first of which compiles, and a block, which is told of."""
        watch = PeakWatch(self.device)
        clocked(step, self.synchronise, 2)
        self._tell_of_speed(f"training alone, {name}", clocked(step, self.synchronise, self.block).wall)
        self.report.figure(f"training, peak memory, {name}", watch.seen().peak / 1e3, "GB")
        return step

    def _tell_of_speed(self, name: str, seconds: float, goal: Goal | None = None) -> None:
        rate = self.batch / seconds
        tflops = rate * self.flops / 1e12
        reached = f"{tflops:.3g} TFLOP/s, {utilisation(tflops, self.report.facts.get('gpu'))}"
        self.report.figure(name, rate, "images/s", goal, reached=reached, tflops=tflops)

    def _tell_of_ratio(self, rounds: Rounds, name: str, goal: Goal) -> None:
        if {name, EAGER} <= set(rounds.names()):
            speed = rounds.ratio(EAGER, name).median
            self.report.figure(f"training, {name}, speed / {EAGER}'s", speed, "", goal)


def flops_per_latent(about: LatentUNet) -> int:
    """Floating-point operations of a training step for one latent, as `gpu_rates.flops_per_image` counts them."""
    with torch.device("meta"):
        network = OurNetwork(build_network(about.config(), image_size=about.side, learned_variance=False))
        x = torch.empty(1, about.channels, about.side, about.side)
        tokens = torch.empty(1, about.tokens, about.context)
        return flops_of(network, x, torch.empty(1), tokens, backward=True)
