"""Installed packages that add choices, made in a folder: files, a distribution's metadata, an entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from difflab.config import plugins
from difflab.config.axes import AXES, NAMES, PARTS, UNFILED
from difflab.config.task import TASKS

EVERY = (*AXES, *PARTS, *UNFILED, TASKS, *NAMES)

CONDITIONER = '''
from typing import Annotated, Literal
from pydantic import Field
from difflab.conditioning.config import ConditionerBase
from difflab.config.axes import CONDITIONERS
from difflab.config.fitting import Makes

@CONDITIONERS.register("{package}.parts:build")
class ToneConfig(ConditionerBase):
    """The tone of an image: one learned vector for all.

    gain: what it is multiplied with.
    """

    kind: Literal["{kind}"]
    gain: float = 1.0
    drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    def makes(self, channels: int) -> Makes:
        return Makes(("vector",))
'''
PARTS = """
import torch
from torch import nn
from difflab.conditioning.base import Conditioner
from difflab.types import Conditioning

class Tone(Conditioner):
    makes = ("vector",)

    def __init__(self, width, gain, drop_rate):
        super().__init__(drop_rate)
        self.gain, self.tone = gain, nn.Parameter(torch.zeros(width))

    def make(self, batch, dropped, noise):
        return Conditioning(vector=self.gain * self.tone.expand(len(batch["index"]), -1))

def build(config, *, embedding_dim, image_size):
    return Tone(embedding_dim, config.gain, config.drop_rate)
"""


class Packages:
    """Puts packages where Python finds them, until the test ends."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self._before = {axis: dict(axis._entries) for axis in EVERY if len(axis)}
        monkeypatch.syspath_prepend(str(folder))
        self._forget()

    def install(
        self, distribution: str, files: dict[str, str], *, version: str = "1.0", module: str | None = None
    ) -> None:
        """files: contents by path. module: what the entry point names; the package of the distribution's name."""
        for path, content in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(content)
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        named = module or distribution.replace("-", "_")
        (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{named} = {named}\n")
        self._forget()

    def install_tone(self, distribution: str = "tone-pack", kind: str = "tone", **conf: str) -> None:
        """One that brings a conditioner, and a choice of it in its conf folder."""
        package = distribution.replace("-", "_")
        choice = f"defaults: [{kind}_defaults@{kind}]\n"
        self.install(
            distribution,
            {
                f"{package}/__init__.py": CONDITIONER.format(package=package, kind=kind),
                f"{package}/parts.py": PARTS,
                f"{package}/conf/conditioning/{kind}.yaml": choice,
                **{f"{package}/conf/{path}": content for path, content in conf.items()},
            },
        )

    def uninstall_all(self) -> None:
        """As if none were there."""
        for info in self.folder.glob("*.dist-info"):
            (info / "entry_points.txt").unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        for axis, kinds in self._before.items():
            axis._entries.clear()
            axis._entries.update(kinds)
        for name in [name for name in sys.modules if self._is_of_here(name)]:
            del sys.modules[name]
        plugins.find.cache_clear()
        for axis in EVERY:
            axis._has_plugins = False

    def _is_of_here(self, name: str) -> bool:
        file = getattr(sys.modules[name], "__file__", None)
        return file is not None and Path(file).is_relative_to(self.folder)


@pytest.fixture
def packages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """A folder that packages are installed into."""
    made = Packages(tmp_path_factory.mktemp("site"), monkeypatch)
    yield made
    made.uninstall_all()
