"""Pipelines: stages run in order, from a request (what the samples should show) to images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from difflab.conditioning.low_resolution import LowResolution
from difflab.data.masks import HoleMasks
from difflab.diffusion.samplers.part import AS_PRINTED
from difflab.errors import UserError, user_errors
from difflab.images import Rounding, as_float, to_uint8
from difflab.pipelines.finite import NonFiniteSamplesError
from difflab.pipelines.handover import FIELD as UNFINISHED
from difflab.requests.base import Request, Wanted
from difflab.seeding import stream_seed
from difflab.types import Batch, NoiseLevel, StepHook

Takes = Literal["low_res", "image", "noise", "nothing"]
"""What a stage takes from the one before it: images that it enlarges as its model was trained to, images from which it
starts at some noise level, or a partially denoised x."""


class Stage(Protocol):
    """One stage of a pipeline, batch -> batch: reads some fields and adds `image`, float [B, C, H, W] in [-1, 1], or
    hands x at a noise level (`difflab.pipelines.handover`) to the next stage.

    shape:     of one output image, (C, H, W).
    reads, stand_ins, optional, classes, sizes: of the batch, see `difflab.conditioning.base.Conditioner`.
    class_names: the names of those classes, if known.
    masks:     how masks are drawn where none is given, None if its model is not conditioned on a mask.
    low_resolution: how the low-resolution images are made from full-size ones, None if the stage enlarges nothing.
    autocast:  the dtype of its networks' arithmetic, None for float32.
    n_steps:   the number of sampling steps, 0 if it has no network.
    decodes:   whether it diffuses latents, of which a decoder makes images.
    begins_at: the noise level at which it continues from the x of the previous stage, None if it does not.
    ends_at:   the noise level at which it leaves x, None for a finished image.
    Sample i of seed s is the same in any batch.
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
    def masks(self) -> HoleMasks | None: ...
    @property
    def low_resolution(self) -> LowResolution | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def n_steps(self) -> int: ...
    @property
    def takes(self) -> Takes: ...
    @property
    def decodes(self) -> bool: ...
    @property
    def begins_at(self) -> NoiseLevel | None: ...
    @property
    def ends_at(self) -> NoiseLevel | None: ...

    def check(self, batch: Batch) -> None:
        """Raises ValueError, in one line, for a batch that it cannot read; called before moving anything."""
        ...

    def __call__(self, batch: Batch, seed: int, hook: StepHook | None = None) -> Batch:
        """Returns the batch with `image`. hook: called after each step of the network.

        Raises NonFiniteSamplesError if a sample is or becomes NaN or infinite.
        """
        ...

    def known(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """The pixels of an image that are kept exactly: (uint8 [B, C, H, W], where: bool [B, 1, H, W]), or None."""
        ...

    def images_of(self, x0: Tensor) -> Tensor:
        """The images of what it diffuses, [B, ...] -> [B, C, H, W]: the same, unless that are latents."""
        ...

    def record(self) -> dict[str, Any]:
        """How it samples, as plain containers: `sampler` and `guidance`, or `pipeline` if it has neither."""
        ...


class Pipeline:
    """Runs stages one after the other (ADM-U, section 5.2 of the paper, has two): the `image` of one is the `low_res`
    of the next, as floats; every stage receives the fields of the request that it reads. Each stage has its own noise,
    except one that continues where another ended, which uses the same random streams.

    stages: by name, in order.
    request: what the samples should show.
    wanted: the fields that the stages need, see `wanted_by`.
    rounding: of the last stage's floats to uint8, once, at the end.

    Raises UserError if the request lacks a field that a stage reads.
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
            raise UserError(f"this model reads {missing[0]}, which the request lacks")

    @property
    def device(self) -> torch.device:
        return self.last.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        channels, height, width = self.last.shape
        return channels, height, width

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
        """The same for a batch of the request: the output of `follow` as uint8."""
        images = to_uint8(self.follow(batch, seed, handed=handed), self.rounding)
        known = self.last.known(batch)
        if known is None:
            return images
        # Rounding does not restore every pixel exactly, so the kept ones are copied back.
        image, stays = (tensor.to(images.device) for tensor in known)
        return torch.where(stays, image, images)

    def draw(self, indices: Sequence[int], seed: int, *, hook: StepHook | None = None) -> Tensor:
        """The same as float32, nominally in [-1, 1]; hook: called after each step of the last stage.

        Raises NonFiniteSamplesError if a sample is or becomes NaN or infinite.
        """
        return self.follow(self.request(indices, seed), seed, hook=hook)

    def images_of(self, x0: Tensor) -> Tensor:
        """The images [B, C, H, W] of what the last stage diffuses, as a step's hook sees it."""
        return self.last.images_of(x0)

    @property
    def enlarging(self) -> int | None:
        """The index of the first stage that enlarges images, None if none does."""
        enlarge = (number for number, one in enumerate(self.stages.values()) if one.low_resolution is not None)
        return next(enlarge, None)

    def follow(
        self,
        batch: Batch,
        seed: int,
        *,
        hook: StepHook | None = None,
        handed: Callable[[Tensor], object] | None = None,
    ) -> Tensor:
        """Returns the samples for a batch of the request, as floats. Raises UserError for a batch that a stage cannot
        read.

        handed: called with the images, float [B, C, h, w], that the first enlarging stage receives from the stage
        before it; not called if they come from the request.
        """
        drawn: Batch = {}
        for number, (name, stage) in enumerate(self.stages.items()):
            with user_errors():
                stage.check(batch)
            if handed is not None and number == self.enlarging and number > 0:
                handed(as_float(batch["low_res"]))
            try:
                # The first stage gives the same samples as it would alone.
                drawn = stage(
                    batch,
                    seed if number == 0 else stream_seed(seed, "stage", number),
                    hook if stage is self.last else None,
                )
            except NonFiniteSamplesError as bad:
                raise (bad.in_stage(name) if len(self.stages) > 1 else bad) from None
            # The request's `image` stays for the stages that keep a part of it.
            left = {UNFINISHED: drawn[UNFINISHED]} if stage.ends_at is not None else {"low_res": drawn["image"]}
            batch = {**batch, **left}
        return drawn["image"]

    def record(self) -> dict[str, Any]:
        """How it samples, as plain containers: `sampler`, `guidance`, and `pipeline` for several stages and for the
        source of each field of the request (classes are recorded elsewhere)."""
        requested = {field: source for field, source in self.request.record().items() if field != "label"}
        if len(self.stages) > 1:
            stages = {name: stage.record() for name, stage in self.stages.items()}
            return {"sampler": {}, "guidance": {}, "pipeline": {"kind": "cascade", "stages": stages, **requested}}
        record = self.last.record()
        pipeline = {**record.get("pipeline", {}), **requested}
        return {**record, "pipeline": pipeline} if pipeline else record


def wanted_by(stages: Mapping[str, Stage]) -> Wanted:
    """The fields that a pipeline of these stages needs from its request.

    Raises UserError if the stages do not fit together.
    """
    names, parts = list(stages), list(stages.values())
    for name, before, stage in zip(names[1:], parts, parts[1:], strict=False):
        check_stage(name, before.shape, stage)
        check_noise(name, before, stage)
    having = {name: stage.classes for name, stage in stages.items() if stage.classes is not None}
    counts = list(having.values())
    if len(set(counts)) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in having.items())
        raise UserError(f"pipeline.stages: all stages need the same number of classes, but they have: {listed}")
    reads, stand_ins, sizes, made = [], {}, {}, False
    for stage in parts:
        # Once a stage has finished an image, the next reads it as low_res.
        given = {"low_res"} if made else set()
        reads += [field for field in stage.reads if field not in given]
        if not made:
            stand_ins |= stage.stand_ins
            sizes |= stage.sizes
        made = made or stage.ends_at is None
    # An image to edit or to compare with has the size of the output.
    whole = parts[-1].sizes
    return Wanted(
        reads=tuple(dict.fromkeys(reads)),
        stand_ins=stand_ins,
        optional=tuple(dict.fromkeys(field for stage in parts for field in stage.optional)),
        classes=counts[0] if counts else None,
        class_names=next((stages[name].class_names for name in having), None),
        sizes={**sizes, **{field: size for field, size in whole.items() if field in ("image", "mask")}},
        masks=next((stage.masks for stage in parts if stage.masks is not None), None),
        channels=parts[0].shape[0],
        start="start" if len(parts) == 1 else f"pipeline.stages.{names[0]}.start",
    )


def check_stage(name: str, before: Sequence[int], stage: Stage) -> None:
    """Raises UserError unless `stage` accepts images of the shape `before`."""
    drawn, own = f"{before[-2]}x{before[-1]}", f"{stage.shape[-2]}x{stage.shape[-1]}"
    size, verb = stage.shape[-1], "continues with"
    if stage.takes == "low_res":
        size, verb = stage.sizes["low_res"], "enlarges"
    elif stage.takes == "image":
        # A smaller one is enlarged first.
        size, verb = min(before[-1], stage.shape[-1]), "begins with"
    elif stage.takes == "nothing":
        raise UserError(
            f"pipeline.stages.{name} enlarges nothing: only the first stage starts from noise alone; "
            f"give the run of an upsampler, or start from the image before it, as in pipeline.stages.{name}.start=0.5"
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
    """Raises UserError unless `stage` takes x over at the level where the one before it ends, for the same image."""
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
            f"pipeline.stages.{name} continues enlarging {other}x{other} images, the stage before it begins to enlarge "
            f"{one}x{one}"
        )
