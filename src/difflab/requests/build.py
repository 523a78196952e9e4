"""Builds a request from the configuration; what it leaves out comes from the seed (classes) or a data split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path

from difflab.config.data import DataConfig
from difflab.config.request import RequestConfig
from difflab.data.fields import EXTENSION_OF
from difflab.data.reading import MissingFieldError
from difflab.errors import UserError
from difflab.requests.base import Listed, Merged, Nothing, Request, UniformClasses, Wanted
from difflab.requests.captions import NEGATIVE, listed_captions
from difflab.requests.classes import class_numbers
from difflab.requests.data_split import DataSplit
from difflab.requests.embeddings import read_embeddings
from difflab.requests.images import open_pictures
from difflab.requests.masks import DrawnMasks
from difflab.requests.sample_file import SampleFile

KEY_OF = {"label": "classes", "caption": "prompts", "image": "images", "embedding": "embeddings"}
"""The option that gives a field, if it has another name."""

EXAMPLES = {
    "label": "classes=[0,1]",
    "caption": "prompts=['a red circle'] or prompts=FILE.txt",
    "image": "images=FOLDER",
    "low_res": "low_res=samples.npz",
    "mask": "mask=FOLDER",
    "embedding": "request=FILE.jsonl or embeddings=FILE.npy",
}

BELONGS_TO = {"boxes": "phrases", "phrases": "boxes"}
"""Fields that have an entry for each entry of another field, and so come from where that comes from."""

IN_DATA = ("image", *EXTENSION_OF)
"""Fields that a data split can provide."""


def build_request(
    config: RequestConfig, wanted: Wanted, data: DataConfig | None = None, split: str = "train"
) -> Request:
    """Builds the request of a sampling run.

    data, split: the source of fields that were not given, None if there is no data set; classes alone come from the
        seed.

    Raises UserError, in one line, for fields that nothing reads, lists of unequal lengths, values that the model does
    not support, and missing fields.
    """
    wanted = dataclasses.replace(wanted, crop=config.crop)
    if data is not None:
        wanted = dataclasses.replace(wanted, alpha=data.alpha)
    parts = _given(config, wanted)
    request = _merged([*parts, *_from_data(parts, wanted, data, split)])
    if wanted.masks is not None and "mask" not in request.fields and "image" in request.fields:
        request = DrawnMasks(request, wanted.masks, wanted.sizes["mask"])
    if "label" in wanted.reads and "label" not in request.fields and wanted.classes is not None:
        request = _merged([request, UniformClasses(wanted.classes)])
    missing = wanted.missing(request.fields)
    if missing:
        raise UserError(_nobody_says(missing[0], wanted))
    return request


def _nobody_says(field: str, wanted: Wanted) -> str:
    size = wanted.sizes.get(field)
    pictures = "" if size is None else f" ({size}x{size} images)"
    example = EXAMPLES.get(field, "request=FILE.jsonl")
    return f"this model reads {field}{pictures}, which is missing: give it, as in {example}"


def _given(config: RequestConfig, wanted: Wanted) -> list[Request]:
    """The fields that the user gave, option by option."""
    given: dict[str, Request] = {}
    if config.classes is not None:
        if wanted.classes is None:
            raise UserError("this model has no classes: leave classes=null")
        numbers = class_numbers(config.classes, wanted.classes, wanted.class_names)
        given["classes"] = Listed("label", numbers)
    if config.prompts is not None:
        _refuse_unread("prompts", "caption", wanted)
        given["prompts"] = listed_captions(config.prompts)
    if config.negative_prompts is not None:
        _refuse_unread("negative_prompts", "caption", wanted)
        given["negative_prompts"] = listed_captions(config.negative_prompts, NEGATIVE, "negative_prompts")
    for field in ("image", "low_res", "mask"):
        key = KEY_OF.get(field, field)
        where: str | None = getattr(config, key)
        if where is not None:
            _refuse_unread(f"{key}={where}", field, wanted)
            given[key] = open_pictures(field, where, wanted, key=key)
    if config.embeddings is not None:
        _refuse_unread(f"embeddings={config.embeddings}", "embedding", wanted)
        path = Path(config.embeddings)
        given["embeddings"] = Listed("embedding", read_embeddings(path), path)
    if config.request is not None:
        lines = SampleFile(Path(config.request), wanted)
        for field in lines.fields:
            _refuse_unread(f"request={config.request}: {field}", field, wanted)
        given["request"] = lines
        for key, other in given.items():
            twice = [field for field in lines.fields if other is not lines and field == other.fields[0]]
            if twice:
                raise UserError(f"{key} and request={config.request} both give {twice[0]}: leave one of the two out")
    _refuse_unused_pictures(given, wanted)
    _refuse_unequal_lengths(given)
    return list(given.values())


def _refuse_unread(given: str, field: str, wanted: Wanted) -> None:
    if field in wanted.known and (field != "label" or wanted.classes is not None):
        return
    if field == "low_res":
        raise UserError(f"{given}: this model enlarges nothing; leave low_res out")
    if field == "image":
        raise UserError(
            f"{given} is not used: begin with it, as in {wanted.start}=0.5, or give a mask= of what is kept"
        )
    known = [f for f in wanted.known if f != "label" or wanted.classes is not None]
    reads = f"it reads {', '.join(known)}" if known else "it is unconditional"
    raise UserError(f"{given}: this model reads no {field}, {reads}; leave it out")


def _refuse_unused_pictures(given: Mapping[str, Request], wanted: Wanted) -> None:
    """Raises UserError for images that only stand in for a field that is given, too.

    Those of an image that is read, as of a low-resolution one, are its originals.
    """
    fields = {field: key for key, part in given.items() for field in part.fields}
    for field, other in wanted.stand_ins.items():
        if {field, other} <= fields.keys() and other not in wanted.reads and field not in wanted.sizes:
            raise UserError(f"{fields[other]} and {fields[field]} both say what {field} is: leave one of the two out")


def _refuse_unequal_lengths(given: dict[str, Request]) -> None:
    lengths = {key: len(part) for key, part in given.items() if isinstance(part, Sized)}
    several = {key: n for key, n in lengths.items() if n > 1}
    if len(set(several.values())) > 1:
        (one, n), (other, m) = next((a, b) for a in several.items() for b in several.items() if a[1] != b[1])
        raise UserError(f"{one} gives {n} and {other} {m}: give as many of both, or one of them for all samples")


def _from_data(parts: Sequence[Request], wanted: Wanted, data: DataConfig | None, split: str) -> list[Request]:
    """Fields that were not given, if a data split has to provide some anyway; otherwise classes come from the seed."""
    given = {field for part in parts for field in part.fields}
    needed = [field for field in wanted.missing(given) if field not in ("label", "mask")]
    needed = [field for field in needed if BELONGS_TO.get(field) not in given]
    if not needed or data is None:
        return []
    if wanted.masks is not None and wanted.masks.objects and "mask" not in given and "image" in needed:
        needed.append("boxes")
    standing_in = {wanted.stand_ins.get(field, field): field for field in needed}
    if not standing_in.keys() <= set(IN_DATA):
        return []
    labelled = "label" not in given and "label" in wanted.known and data.classes is not None
    records = {stand_in: field for stand_in, field in standing_in.items() if stand_in != field}
    try:
        return [DataSplit(data, split, [*standing_in, *(["label"] if labelled else [])], records)]
    except MissingFieldError as error:
        raise UserError(f"{_nobody_says(records.get(error.field, error.field), wanted)} ({error.why})") from None


def _merged(parts: Sequence[Request]) -> Request:
    return parts[0] if len(parts) == 1 else Merged(parts) if parts else Nothing()
