"""Layouts that are written as folders: which files, and what a folder that is there already may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from difflab.config.model import ModelConfig
from difflab.errors import UserError
from difflab.files import replacing_together
from difflab.interop import native
from difflab.interop.layout import Target
from difflab.interop.tensor_files import write_safetensors

Files = dict[str, dict[str, Any]]
"""Name -> content of JSON files."""

_RUN = "config.yaml"
_OTHER = "a model in another layout"


def _no_remarks(config: ModelConfig, path: str) -> list[str]:
    return []


@dataclass(frozen=True)
class FolderFormat:
    """A folder of weights and what describes them.

    weights:   the file of the weights.
    config:    the file that says what they are, and mark, a key that it always has at its top.
    described: (target, the whole model or None) -> the JSON files. Raises UserError for a model that the code has not.
    patterns:  of further files that tell such a folder.
    remarks:   (the whole model, the path) -> lines on what the code does otherwise.
    """

    weights: str
    config: str
    mark: str
    described: Callable[[Target, ModelConfig | None], Files]
    patterns: tuple[str, ...] = ()
    remarks: Callable[[ModelConfig, str], list[str]] = _no_remarks

    @property
    def told_by(self) -> tuple[str, ...]:
        """Patterns of the files by which a folder is one of these, besides config.json, which all may have."""
        own = () if self.config == native.CONFIG else (self.config,)
        name = Path(self.weights).stem
        return (f"{name}.*", f"{name}-*", *own, *self.patterns)


NATIVE_FOLDER = FolderFormat(native.WEIGHTS, native.CONFIG, "difflab", lambda _target, _config: {})


def save_folder(
    format_: FolderFormat, folder: Path, official: Mapping[str, Tensor], target: Target, config: ModelConfig | None
) -> list[Path]:
    """Writes a folder; returns the files written. All of them appear, or none does.

    config: the whole model, where it is known. Raises UserError if the code has no such model.
    """
    described = format_.described(target, config)
    with replacing_together(folder) as temporary:
        write_safetensors(temporary / format_.weights, official)
        for name, content in described.items():
            native.save_json(temporary / name, content)
    return [folder / name for name in (format_.weights, *described)]


def refuse_other_model(path: Path, format_: FolderFormat, all_formats: Iterable[FolderFormat], layout: str) -> None:
    """Files of two layouts in one folder would be taken for one model; files of others are not overwritten."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file, where layout {layout} writes a folder; give another name")
    description = path / format_.config
    others = {_RUN: "a run"}
    for other in all_formats:
        others |= {pattern: _OTHER for pattern in other.told_by if pattern not in format_.told_by}
    if not description.is_file():
        others |= dict.fromkeys(format_.patterns, _OTHER)
    for pattern, what in others.items():
        for file in path.glob(pattern):
            raise UserError(f"{path}: holds {file.name}, {what}; give another folder")
    if description.is_file() and format_.mark not in _content_of(description):
        raise UserError(f"{path}: holds a {format_.config} that difflab did not write; give another folder")


def _content_of(path: Path) -> Mapping[str, object]:
    try:
        return native.read_json(path)
    except UserError:
        return {}
