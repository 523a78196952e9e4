"""The page as one HTML file: pictures, protocol and program in it, nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from difflab import __version__
from difflab.data.encode import encode_image
from difflab.errors import UserError
from difflab.forced_choice.pictures import Pixels, Study
from difflab.forced_choice.protocol import QUESTIONS, Pair, Protocol, Role, Task
from difflab.progress import track

FORMAT = "difflab-fool-rate-page-1"
LARGEST_PAGE = 256 << 20
"""Bytes of a page; browsers end at half a gigabyte."""

_PADDING = b"paDd"
"""A private ancillary chunk that may be copied, by the case of its letters (PNG, section 5.4): readers skip it."""
_CHUNK = 12
"""Bytes of a chunk without its data."""
_DATA = re.compile(r'<script type="application/json" id="page">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True)
class Page:
    """What is written: `html`, and the digest of all that decides what a rater sees."""

    html: str
    digest: str
    protocol: Protocol
    pairs: Sequence[Pair]


def make_page(study: Study, pairs: Sequence[Pair], *, task: Task, seconds: float, seed: int) -> Page:
    """The page of these trials.

    Only the `key`, which is read at the end, distinguishes a sample from an original: both are PNGs of the same size
    and number of bytes. Raises UserError if the page would be too large for a browser.
    """
    kinds = [pair.kind for pair in pairs]
    protocol = Protocol(
        difflab=__version__,
        task=task,
        question=QUESTIONS[task],
        seed=seed,
        seconds=seconds,
        practice=kinds.count("practice"),
        rated=kinds.count("rated"),
        checks=kinds.count("check"),
    )
    key = [pair.plain() for pair in pairs]
    trials: list[dict[str, bytes]] = []
    shown = hashlib.sha256()
    for pair in track(pairs, len(pairs), "pairs"):
        pixels = _shown(study, pair, task)
        trials.append({place: encode_image(picture, "png") for place, picture in pixels.items()})
        for picture in pixels.values():
            shown.update(repr(picture.shape).encode() + picture.tobytes())
    _as_long_as_the_longest(trials)
    _refuse_too_large(trials)
    what = {"protocol": protocol.plain(), "key": key, "pictures": shown.hexdigest()}
    digest = hashlib.sha256(_compact(what).encode()).hexdigest()
    height, width = study.originals.size
    data = {
        "format": FORMAT,
        "digest": digest,
        "protocol": protocol.plain(),
        "size": [width, height],
        "trials": [{place: _data_uri(png) for place, png in trial.items()} for trial in trials],
        "key": base64.b64encode(_compact(key).encode()).decode(),
    }
    return Page(_html(data), digest, protocol, pairs)


def digest_of(html: str, shown: str) -> str:
    """The digest of a written page. shown: the name of the file. Raises UserError if it is not a page."""
    found = _DATA.search(html)
    try:
        data = json.loads(found[1]) if found else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("digest"), str):
        raise UserError(f"{shown} is no page that `difflab fool-rate page` wrote")
    return data["digest"]


def _shown(study: Study, pair: Pair, task: Task) -> dict[str, Pixels]:
    def picture(role: Role) -> Pixels:
        if role == "original":
            return study.originals(pair.pair)
        return study.bicubic(pair.pair) if pair.model is None else study.models[pair.model](pair.pair)

    shown = {"left": picture(pair.left), "right": picture(pair.right)}
    if task == 1:
        assert study.low_res is not None, "task 1 needs it"
        shown["low_res"] = study.low_res(pair.pair)
    return {place: np.ascontiguousarray(pixels) for place, pixels in shown.items()}


def _as_long_as_the_longest(trials: Sequence[dict[str, bytes]]) -> None:
    """Pads the file, as a smooth image is smaller, which would distinguish it from a photograph."""
    longest = max(len(trial[side]) for trial in trials for side in ("left", "right"))
    for trial in trials:
        for side in ("left", "right"):
            trial[side] = padded(trial[side], longest + _CHUNK)


def padded(png: bytes, length: int) -> bytes:
    """The same picture as a file of `length` bytes, at least 12 more than it has."""
    zeros = length - len(png) - _CHUNK
    assert zeros >= 0, "there is room for a chunk"
    body = _PADDING + bytes(zeros)
    chunk = zeros.to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    # Before the end, which is a chunk without data.
    return png[:-_CHUNK] + chunk + png[-_CHUNK:]


def _refuse_too_large(trials: Sequence[dict[str, bytes]]) -> None:
    size = sum(len(png) for trial in trials for png in trial.values()) * 4 // 3
    if size > LARGEST_PAGE:
        raise UserError(
            f"the page would have {size >> 20} MiB, more than browsers take ({LARGEST_PAGE >> 20}): lower --n, "
            "and make several pages with other seeds"
        )


def _html(data: dict[str, Any]) -> str:
    files = resources.files("difflab.forced_choice")
    html, style, script = (files.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    # What would end the element is an escape in JSON.
    content = _compact(data).replace("<", "\\u003c")
    parts = {
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        "page": content,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], html)


def _csp_hash(text: str) -> str:
    """A source of a content security policy: this text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
