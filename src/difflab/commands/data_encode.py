"""`difflab data encode`: adds fields that an encoder computes to a data set."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from difflab.commands.data_arguments import described, find_kind, parse_arguments, validated
from difflab.config.axes import ENCODERS
from difflab.config.base import Config
from difflab.config.data import Captions, KeyRule
from difflab.config.encoder import EncoderConfig, FloatDtype
from difflab.config.ranks import RanksConfig
from difflab.console import printable, say
from difflab.errors import UserError

TEXTS = frozenset({"path", "out", "encoder", "run", "prefix"})
"""Keys whose values are taken literally: a directory may be named 1 or null."""


class EncodeConfig(Config):
    """The keys of `encode` itself; all others belong to the encoder."""

    path: Annotated[str, Field(min_length=1)]
    """The data set: a directory of shards, which stays as it is."""
    out: Annotated[str, Field(min_length=1)]
    """Another directory, for its shards with the fields; it may already contain other splits of the same."""
    encoder: str = "clip"
    """What computes the fields."""
    splits: list[str] | None = None
    """The splits that are encoded; null = all."""
    dtype: FloatDtype | None = None
    """The dtype in which numbers are stored; null = float16, but float32 for the latents of a first stage."""
    captions: Captions = "lines"
    """Which part of a .txt is encoded, and can be trained with as data.captions: lines = a row for each of them (for
    lines and first_line); first_line; or whole = all of it as one caption."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images and captions at a time; other sizes may change the last bits of the numbers."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """The precision of the encoder: 32-true or bf16-mixed."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """The kind of device: auto, cpu, gpu, cuda or mps; auto = a GPU if there is one."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """The number of processes, among which the shards are split; auto = one per GPU, one on a CPU."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that read for each device, 0 = the device's own; null = up to 8 for a GPU, 0 on a CPU."""
    keys: KeyRule = "first_dot"
    """Where names of other tools' files end: at the first_dot or the last_dot."""
    bad: Literal["stop", "skip"] = "stop"
    """Samples that cannot be encoded: the first one stops the command, or all are left out, named and counted."""
    max_bad_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Of bad=skip: the data set is not finished if more than this fraction of the samples is bad."""
    ranks: RanksConfig = RanksConfig()
    """How long several processes wait for an unresponsive one."""


def encode_data(arguments: Sequence[str]) -> None:
    """Encodes the data set that the arguments describe, or shows the keys of an encoder."""
    given = _with_encoder(parse_arguments(arguments, "path", TEXTS | {kind.name for kind in ENCODERS.values()}))
    kind = find_kind(ENCODERS, str(given.get("encoder", ENCODERS.default)))
    if given.pop("help", False):
        sys.stdout.write(described(EncodeConfig, ENCODERS, kind))
        return
    options, encoder = validated(EncodeConfig, ENCODERS, kind, given)
    assert isinstance(encoder, EncoderConfig), f"the configuration of encoder={kind.name} is an EncoderConfig"
    from difflab.commands.data_encoding import encode

    made = encode(options, encoder)
    if made is None:
        return
    splits = ", ".join(f"{name} {entry.samples}" for name, entry in made.splits.items())
    shards = sum(len(entry.shards) for entry in made.splits.values())
    say(f"{printable(options.out)}: {splits} samples in {shards} shards")
    for name, field in made.fields.items():
        say(f"{name}: {field.in_words()}")
    if made.bad:
        say(f"left out: {len(made.bad)} samples, as {made.bad[0]}")


def _with_encoder(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with `clip=RUN`, and other encoders' names alike, as `encoder=clip run=RUN`.

    Raises UserError for a second encoder or run.
    """
    named = [kind.name for kind in ENCODERS.values() if kind.name in given and "run" in kind.config.model_fields]
    if not named:
        return dict(given)
    name, *others = named
    other = next((key for key in (*others, "encoder", "run") if key in given), None)
    if other is not None:
        raise UserError(f"{name}= and {other}= are both given: {name}=RUN alone says which encoder, and where it is")
    rest = {key: value for key, value in given.items() if key != name}
    return {**rest, "encoder": name, "run": given[name]}
