"""Stages put together: what samples have to show goes in, batches go from stage to stage, pictures come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from difflab.diffusion.samplers.part import AS_PRINTED
from difflab.errors import UserError, user_errors
from difflab.images import Downsampling, Rounding, as_float, to_uint8
from difflab.pipelines.finite import NonFiniteSamplesError
from difflab.pipelines.handover import FIELD as UNFINISHED
from difflab.requests.base import Request, Wanted
from difflab.seeding import stream_seed
from difflab.types import Batch, NoiseLevel, StepHook

Takes = Literal["low_res", "image", "noise", "nothing"]
"""What a stage takes of the one before it: images that it enlarges as its model was trained to, images that it begins
with at some noise, x in the middle of its way."""


class Stage(Protocol):
    """One part of a drawing, batch -> batch: it reads some fields and makes `image`, float [B, C, H, W] in [-1, 1], or
    leaves x at a noise level (`difflab.pipelines.handover`) to the next stage.

    shape:     of one image that it makes, (C, H, W).
    reads, stand_ins, optional, classes, sizes: of the batch, as `difflab.conditioning.base.Conditioner` says.
    class_names: what those classes are called, where that is known.
    downsampling: how the images that it enlarges are made of whole ones, None where it enlarges none.
    autocast:  the dtype of its networks' arithmetic, None for float32.
    n_steps:   how many steps its network takes, 0 where it has none.
    begins_at: the noise level where it goes on with the x of the stage before it, None where it does not.
    ends_at:   the noise level that it leaves x at, None for a finished image.
    Sample i of seed s comes out the same whatever batch it is drawn in.
    """

    shape: tuple[int, ...]
    class_names: Sequence[str] | None
    autocast: torch.dtype | None

    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def stand_ins(self) -> Mapping[str, str]: ...
    @property
    def optional(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def downsampling(self) -> Downsampling | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def n_steps(self) -> int: ...
    @property
    def takes(self) -> Takes: ...
    @property
    def begins_at(self) -> NoiseLevel | None: ...
    @property
    def ends_at(self) -> NoiseLevel | None: ...

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch that it cannot read; called before anything is moved."""
        ...

    def __call__(self, batch: Batch, seed: int, hook: StepHook | None = None) -> Batch:
        """The batch with `image`. hook: called after each step of the network.

        Raises NonFiniteSamplesError where a sample is NaN or infinite, or was on the way.
        """
        ...

    def known(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """What of an image stays to the bit: (uint8 [B, C, H, W], where: bool [B, 1, H, W]), or None."""
        ...

    def record(self) -> dict[str, Any]:
        """How it draws, as plain containers: `sampler` and `guidance`, or `pipeline` where it has neither."""
        ...


class Pipeline:
    """Stages one after the other (ADM-U, section 5.2 of the paper, is two): the `image` of one is the `low_res` of the
    next, as floats; what the request asks for is told to each that reads it. Each has noise of its own, but for one
    that goes on where another ended, which draws from the same streams.

    stages: by name, in their order.
    request: what samples have to show.
    wanted: what they want of a request, as `wanted_by` says.
    rounding: of the last stage's floats to uint8, once, at the end.

    Raises UserError where the request lacks what a stage reads.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        request: Request,
        wanted: Wanted,
        rounding: Rounding = "truncate",
    ) -> None:
        self.stages = dict(stages)
        self.request = request
        self.rounding: Rounding = rounding
        self.last = list(self.stages.values())[-1]
        self.wanted = wanted
        missing = self.wanted.missing(request.fields)
        if missing:
            raise UserError(f"this model reads {missing[0]}, which the request does not say")

    @property
    def device(self) -> torch.device:
        return self.last.device

    @property
    def n_steps(self) -> int:
        return self.last.n_steps

    @property
    def autocast(self) -> torch.dtype | None:
        return self.last.autocast

    def __call__(self, indices: Sequence[int], seed: int) -> Tensor:
        """uint8 [len(indices), C, H, W]; sample i depends on (seed, i) alone."""
        return self.drawn(self.request(indices, seed), seed)

    def drawn(self, batch: Batch, seed: int, handed: Callable[[Tensor], object] | None = None) -> Tensor:
        """The same for a request's batch: what `follow` gives, in uint8."""
        images = to_uint8(self.follow(batch, seed, handed=handed), self.rounding)
        known = self.last.known(batch)
        if known is None:
            return images
        # Rounding does not bring every pixel back: those that stay are put in again.
        image, stays = (tensor.to(images.device) for tensor in known)
        return torch.where(stays, image, images)

    def draw(self, indices: Sequence[int], seed: int, *, hook: StepHook | None = None) -> Tensor:
        """The same as float32, nominally in [-1, 1]; hook: called after each step of the last stage.

        Raises NonFiniteSamplesError where a sample is NaN or infinite, or was on the way.
        """
        return self.follow(self.request(indices, seed), seed, hook=hook)

    @property
    def enlarging(self) -> int | None:
        """The number of the first stage that enlarges what it is given, None where none does."""
        enlarge = (number for number, one in enumerate(self.stages.values()) if one.downsampling is not None)
        return next(enlarge, None)

    def follow(
        self,
        batch: Batch,
        seed: int,
        *,
        hook: StepHook | None = None,
        handed: Callable[[Tensor], object] | None = None,
    ) -> Tensor:
        """What the samples of a request's batch look like. Raises UserError for a batch that no stage can read.

        handed: called with the images, float [B, C, h, w], that the first stage which enlarges some has of the one
        before it; not where they are asked for.
        """
        drawn: Batch = {}
        for number, (name, stage) in enumerate(self.stages.items()):
            with user_errors():
                stage.check(batch)
            if handed is not None and number == self.enlarging and number > 0:
                handed(as_float(batch["low_res"]))
            try:
                # The first stage draws what it would draw alone.
                drawn = stage(
                    batch,
                    seed if number == 0 else stream_seed(seed, "stage", number),
                    hook if stage is self.last else None,
                )
            except NonFiniteSamplesError as bad:
                raise (bad.in_stage(name) if len(self.stages) > 1 else bad) from None
            # What the request gives as `image` stays for the stages that keep a part of it.
            left = {UNFINISHED: drawn[UNFINISHED]} if stage.ends_at is not None else {"low_res": drawn["image"]}
            batch = {**batch, **left}
        return drawn["image"]

    def record(self) -> dict[str, Any]:
        """How it draws, as plain containers: `sampler`, `guidance`, and `pipeline` where there is more to say: several
        stages, and where what they read comes from (classes are said elsewhere)."""
        requested = {field: source for field, source in self.request.record().items() if field != "label"}
        if len(self.stages) > 1:
            stages = {name: stage.record() for name, stage in self.stages.items()}
            return {"sampler": {}, "guidance": {}, "pipeline": {"kind": "cascade", "stages": stages, **requested}}
        record = self.last.record()
        pipeline = {**record.get("pipeline", {}), **requested}
        return {**record, "pipeline": pipeline} if pipeline else record


def wanted_by(stages: Mapping[str, Stage]) -> Wanted:
    """What a pipeline of these stages wants of its request.

    Raises UserError where they do not fit one another.
    """
    names, parts = list(stages), list(stages.values())
    for name, before, stage in zip(names[1:], parts, parts[1:], strict=False):
        check_stage(name, before.shape, stage)
        check_noise(name, before, stage)
    having = {name: stage.classes for name, stage in stages.items() if stage.classes is not None}
    counts = list(having.values())
    if len(set(counts)) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in having.items())
        raise UserError(f"pipeline.stages: all of them are told the same classes, but they have others: {listed}")
    reads, stand_ins, sizes, made = [], {}, {}, False
    for stage in parts:
        # The stage before makes it, once one has ended.
        given = {"low_res"} if made else set()
        reads += [field for field in stage.reads if field not in given]
        if not made:
            stand_ins |= stage.stand_ins
            sizes |= stage.sizes
        made = made or stage.ends_at is None
    # What is edited, or what samples are compared with, has the size of what comes out.
    whole = parts[-1].sizes
    return Wanted(
        reads=tuple(dict.fromkeys(reads)),
        stand_ins=stand_ins,
        optional=tuple(dict.fromkeys(field for stage in parts for field in stage.optional)),
        classes=counts[0] if counts else None,
        class_names=next((stages[name].class_names for name in having), None),
        sizes={**sizes, **{field: size for field, size in whole.items() if field in ("image", "mask")}},
        channels=parts[0].shape[0],
        start="start" if len(parts) == 1 else f"pipeline.stages.{names[0]}.start",
    )


def check_stage(name: str, before: Sequence[int], stage: Stage) -> None:
    """Raises UserError unless `stage` takes images of the shape `before`."""
    drawn, own = f"{before[-2]}x{before[-1]}", f"{stage.shape[-2]}x{stage.shape[-1]}"
    size, verb = stage.shape[-1], "goes on with"
    if stage.takes == "low_res":
        size, verb = stage.sizes["low_res"], "enlarges"
    elif stage.takes == "image":
        # A smaller one is enlarged.
        size, verb = min(before[-1], stage.shape[-1]), "begins with"
    elif stage.takes == "nothing":
        raise UserError(
            f"pipeline.stages.{name} enlarges nothing: only the first stage draws from noise alone; "
            f"give the run of an upsampler, or begin with the image before it, as in pipeline.stages.{name}.start=0.5"
        )
    if before[-1] != size:
        wanted = own if stage.takes == "noise" else f"{size}x{size}"
        smaller = ", or smaller ones" if stage.takes == "image" else ""
        raise UserError(f"pipeline.stages.{name} {verb} {wanted} images{smaller}, the stage before it draws {drawn}")
    if before[0] != stage.shape[0]:
        raise UserError(
            f"pipeline.stages.{name} {verb} images of {stage.shape[0]} channels, the stage before it draws {before[0]}"
        )


def check_noise(name: str, before: Stage, stage: Stage) -> None:
    """Raises UserError unless `stage` takes x over where the one before it leaves it, told of the same image."""
    begins, ends = stage.begins_at, before.ends_at
    if begins is None and ends is not None:
        raise UserError(
            f"pipeline.stages.{name} begins anew, but the stage before it ends at sigma {ends.edm_sigma:g}: set "
            f"pipeline.stages.{name}.continues=true"
        )
    if begins is None or ends is None:
        return
    if begins.edm_sigma != ends.edm_sigma and not math.isclose(begins.edm_sigma, ends.edm_sigma, rel_tol=AS_PRINTED):
        raise UserError(
            f"pipeline.stages.{name} begins at sigma {begins.edm_sigma:g}, and the stage before it ends at "
            f"{ends.edm_sigma:g}: give both as many sampler.steps and {name} a start as large as the end before it, or "
            "leave its start out"
        )
    one, other = before.sizes.get("low_res"), stage.sizes.get("low_res")
    if one is not None and other is not None and one != other:
        raise UserError(
            f"pipeline.stages.{name} goes on enlarging {other}x{other} images, the stage before it begins to enlarge "
            f"{one}x{one}"
        )
