"""The originals of the outputs of `difflab sample`: sample i was conditioned on image i of a data split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from difflab.conditioning.degradation.config import DegradationConfig
from difflab.config.data import DataConfig
from difflab.config.model import DrawingModelConfig
from difflab.console import printable
from difflab.errors import UserError
from difflab.forced_choice.pictures import Made, NamedPictures, as_pixels
from difflab.images import as_float, to_uint8
from difflab.pipelines.build import require_drawing
from difflab.pipelines.pairing import low_resolution_of
from difflab.pipelines.stored import Stored, find_stored
from difflab.requests.data_split import DataSplit
from difflab.requests.drawings import record_of, runs_of, seed_of
from difflab.seeding import sample_seeds

FIELD = "image"
GIVEN = ("low_res", "images", "request")
"""Keys of a drawing that take the place of the data split."""


@dataclass(frozen=True)
class Origin:
    """Where originals lie. split: of the data set `path`; run: whose data and low-resolution images they are."""

    run: str | None
    path: Path | None
    split: str | None


class SplitOriginals:
    """The originals of samples as a data split has them, and their low-resolution images as the model was shown them.

    samples: of a drawing (sample.json says of which run and split), or of any program in the order of the split.
    Raises UserError if the conditioning of the samples is not recorded.
    """

    def __init__(self, samples: NamedPictures, given: Origin) -> None:
        record = record_of(samples.path, "give --originals and --low-res")
        if record is not None:
            _refuse_given(record, samples.shown)
        first, last = _runs(record, given)
        self.split = given.split or _text(record, "split") or "val"
        self._first, self._record = first, record
        self._data = _data(last, given, samples)
        self._pictures = DataSplit(self._data, self.split, [FIELD])
        self._places = {name: i for i, name in enumerate(samples.names)}
        self.shown = f"{printable(self._data.path)}/{self.split}"
        self.size = (self._data.image_size, self._data.image_size)

    @property
    def source(self) -> tuple[Path, str, int]:
        """What identifies these originals."""
        return Path(self._data.path).resolve(), self.split, self._data.image_size

    def __len__(self) -> int:
        return len(self._pictures)

    def __call__(self, name: str) -> Any:
        return as_pixels(self._image(name)[0])

    @property
    def degraded(self) -> tuple[DegradationConfig, int] | None:
        """How the low-resolution inputs of the run were degraded at random and with which seed, None if they were not.

        Raises UserError if the samples do not say with which seed.
        """
        shrinks = None if self._first is None else self._drawing(self._first).shrinks
        if self._first is None or shrinks is None or shrinks.degradation is None:
            return None
        if self._record is None:
            raise UserError(
                f"{self._first.path} degrades its low-resolution images at random, and nothing says how those of these "
                "samples were: give --low-res FOLDER"
            )
        return shrinks.degradation, seed_of(self._record)

    def low_res(self) -> Made | None:
        """The low-resolution inputs of the run, None if no run is known or if it is not an upsampler.

        Raises UserError as `degraded` does.
        """
        low_resolution = None if self._first is None else low_resolution_of(self._drawing(self._first))
        if self._first is None or low_resolution is None:
            return None
        seed = 0 if self.degraded is None else self.degraded[1]

        def make(name: str) -> Any:
            small = low_resolution(self._image(name), sample_seeds(seed, [self._places[name]]))
            return as_pixels(to_uint8(as_float(small), "nearest")[0])

        return Made(f"what {self._first.path} enlarges", (low_resolution.size, low_resolution.size), make)

    def _drawing(self, stored: Stored) -> DrawingModelConfig:
        return require_drawing(str(stored.path), stored.config)

    def _image(self, name: str) -> Tensor:
        image = self._pictures([self._places[name]], 0)[FIELD]
        assert isinstance(image, Tensor)
        return image


def _refuse_given(record: dict[str, Any], shown: str) -> None:
    for key in GIVEN:
        if record.get(key) is not None:
            raise UserError(
                f"{shown} was drawn with {key}={printable(record[key])}, not of a data split: say which the originals "
                "are, as in --originals FOLDER --low-res FOLDER"
            )


def _runs(record: dict[str, Any] | None, given: Origin) -> tuple[Stored | None, Stored | None]:
    """The models that read the low-resolution image and that made the picture: the first and the last of a cascade."""
    named = runs_of(record or {}) if given.run is None else [given.run]
    found = [find_stored(run, "auto", key="--run") for run in (named[:1] + named[-1:])]
    return (found[0], found[-1]) if found else (None, None)


def _data(stored: Stored | None, given: Origin, samples: NamedPictures) -> DataConfig:
    known = None if stored is None or stored.train is None else stored.train.data
    if given.path is None:
        if known is None:
            raise UserError(
                f"{samples.shown}: nothing says which pictures the originals are: give --originals FOLDER, or the "
                "--data that the samples follow in their order"
            )
        return known
    height, width = samples.size
    if height != width:
        raise UserError(f"{samples.shown} holds {width}x{height} pictures, --data has square ones: give --originals")
    if known is not None:
        return known.model_copy(update={"path": str(given.path)})
    return DataConfig(path=str(given.path), image_size=height, batch_size=1)


def _text(record: dict[str, Any] | None, key: str) -> str | None:
    value = (record or {}).get(key)
    return value if isinstance(value, str) else None
