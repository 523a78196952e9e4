"""difflab from Python: samples and evaluates a stored model like the commands, without writing files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from difflab.commands.accuracy import ACCURACY
from difflab.commands.command import Command, Machine, Work
from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import models_on
from difflab.commands.evaluate import EVALUATE, EVALUATE_RECONSTRUCTIONS, EVALUATE_SAMPLES
from difflab.commands.likelihood import LIKELIHOOD
from difflab.commands.limits import require_folder
from difflab.commands.measurements.measuring import Measuring, table_of
from difflab.commands.probe import PROBE
from difflab.commands.processes import Processes
from difflab.commands.retrieval import RETRIEVAL
from difflab.commands.run_defaults import in_hydra
from difflab.commands.sample import SAMPLE
from difflab.commands.sample_archive import GRID_MIN_SIDE
from difflab.commands.sample_folder import picture_name, write_caption
from difflab.commands.sampling import Sampling
from difflab.commands.zero_shot import ZERO_SHOT
from difflab.config.model import DrawingModelConfig, ModelConfig
from difflab.config.overrides import literal
from difflab.config.work import WorkConfig
from difflab.devices import resolve_accelerator
from difflab.errors import UserError
from difflab.machine import machine_errors
from difflab.metrics.protocol import Result
from difflab.pipelines.build import StoredModels
from difflab.pipelines.stored import find_stored
from difflab.requests.words import in_words
from difflab.tracking.grid import make_grid, save_picture, to_pil

if TYPE_CHECKING:
    from PIL.Image import Image


WRITING = ("out", "logger", "npz", "trajectory")
"""Keys of outputs that commands write if requested."""

LOADED = ("run", "samples")
"""Keys that name the model or samples to load."""


class Run:
    """A stored model, created by `difflab.load`.

    Omitted arguments have the defaults of the commands: the run's own sampler and guidance, and the defaults of
    `difflab sample` and `difflab evaluate`. Samples and metrics are bitwise those of the commands: sample i of seed s
    depends on (s, i) only, up to rounding if the batch size differs. Weights are read once. Unlike in commands, results
    are not recorded. Reference statistics are cached as in the commands.

    Every method raises `difflab.UserError`, with the error message of the command.
    """

    def __init__(self, path: str | Path, *, weights: str | None = None, accelerator: str = "auto") -> None:
        _path("path", path)
        _one_of("weights", weights, (None, "ema", "raw", "auto"))
        _one_of("accelerator", accelerator, get_args(WorkConfig.model_fields["accelerator"].annotation))
        self._weights, self._accelerator = weights, accelerator
        self._stored = find_stored(path, "raw" if weights == "raw" else "ema" if weights == "ema" else "auto")
        self._models = models_on(resolve_accelerator(accelerator))

    @property
    def path(self) -> Path:
        """The path of the model: a run directory, an exported folder or a checkpoint."""
        return self._stored.path

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self._stored.config

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        classes: Sequence[int | str] | None = None,
        prompts: Sequence[str] | str | None = None,
        images: str | Path | None = None,
        mask: str | Path | None = None,
        start: float | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | str | None = None,
        overrides: Sequence[str] = (),
    ) -> Images:
        """Generates samples 0..n-1 of `seed`.

        classes, prompts: the conditions of the samples, used in turn; classes by number or by name.
        images: a folder or an archive of initial images, for which the last fraction `start` of the sampler's steps is
            taken (SDEdit), or which are kept where the images of `mask` are black.
        sampler: a choice of the group, such as "heun"; steps: `sampler.steps`.
        guidance: its scale (1 = conditional only), or a choice of the group such as "none". For a run without one, a
            scale selects classifier-free guidance.
        overrides: any other options as on the command line, such as ["sampler.eta=0.5", "batch_size=16"].
        """
        given = {"n": n, "seed": seed, **_requested(classes, prompts, images, mask, start)}
        work = self._work(SAMPLE, {**given, **self._drawn(sampler, steps, guidance)}, overrides)
        assert isinstance(work, Sampling)
        requested: list[Mapping[str, Any]] = []
        shows: list[str] = []
        drawn: list[Tensor] = []
        for batch, pictures in work.drawing.batches():
            requested.append({field: value for field, value in batch.items() if field in ("label", "caption")})
            shows += in_words(batch, work.drawing.pipeline.wanted.class_names) or []
            drawn.append(pictures.cpu())
        return Images(torch.cat(drawn), _joined(requested), shows or None)

    def evaluate(
        self,
        n: int = 512,
        *,
        metrics: str = "shapes",
        seed: int = 0,
        classes: Sequence[int | str] | None = None,
        prompts: Sequence[str] | str | None = None,
        images: str | Path | None = None,
        mask: str | Path | None = None,
        start: float | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | str | None = None,
        overrides: Sequence[str] = (),
    ) -> Results:
        """Generates n samples and evaluates them.

        metrics: a choice of the group, such as "lite0" or "guidance". The other arguments are those of `sample`.
        """
        given = {"n": n, "seed": seed, "metrics": metrics, **_requested(classes, prompts, images, mask, start)}
        return self._measured(EVALUATE, {**given, **self._drawn(sampler, steps, guidance)}, overrides)

    def likelihood(
        self, n: int = 256, *, method: str = "bound", split: str = "val", seed: int = 0, overrides: Sequence[str] = ()
    ) -> Results:
        """Computes bits per dimension of n images of a split; method: "bound" or "ode"."""
        given = {"n": n, "method": method, "split": split, "seed": seed}
        return self._measured(LIKELIHOOD, given, overrides)

    def accuracy(
        self, n: int = 256, *, times: int = 20, split: str = "val", seed: int = 0, overrides: Sequence[str] = ()
    ) -> Results:
        """Computes a classifier's accuracy on n images of a split, at `times` times of its noise schedule."""
        return self._measured(ACCURACY, {"n": n, "times": times, "split": split, "seed": seed}, overrides)

    def zero_shot(
        self,
        n: int = 256,
        *,
        templates: str | Sequence[str] = "simple",
        class_names: Sequence[str] | Mapping[str, str] | str | None = None,
        split: str = "val",
        overrides: Sequence[str] = (),
    ) -> Results:
        """Classifies n images of a split by prompts, with a model that embeds images and texts.

        templates: "imagenet", "simple", "shapes", a file, or a list. class_names: a list in the order of the labels,
        {class of the data: name}, or a file; None for the names of the data.
        """
        given = {"n": n, "split": split, "templates": templates, "class_names": class_names}
        return self._measured(ZERO_SHOT, given, overrides)

    def retrieval(
        self, n: int = 256, *, distinct: bool = False, split: str = "val", overrides: Sequence[str] = ()
    ) -> Results:
        """Finds the captions of n images of a split, and the images of their captions."""
        return self._measured(RETRIEVAL, {"n": n, "split": split, "distinct": distinct}, overrides)

    def probe(
        self,
        n: int = 256,
        *,
        shots: Sequence[int] | None = None,
        templates: str | Sequence[str] = "simple",
        split: str = "val",
        seed: int = 0,
        overrides: Sequence[str] = (),
    ) -> Results:
        """Trains linear probes of a model's features, from all images of the training split or `shots` of each class,
        and measures them, and zero-shot classification, on n images of a split."""
        given = {"n": n, "split": split, "shots": shots, "templates": templates, "seed": seed}
        return self._measured(PROBE, given, overrides)

    def reconstruct(
        self,
        n: int = 256,
        *,
        metrics: str = "reconstruction",
        posterior: str = "mode",
        tile: int | None = None,
        split: str = "val",
        seed: int = 0,
        overrides: Sequence[str] = (),
    ) -> Results:
        """Reconstructs n images of a split with an autoencoder, and evaluates the reconstructions.

        metrics: a choice of the group. posterior: "mode" or "sample", the latent of an image. tile: pixels per side of
        the tiles in which images are encoded and decoded; None for whole images.
        """
        tiles = {} if tile is None else {"tiled": True, "tile": tile}
        given = {"n": n, "metrics": metrics, "posterior": posterior, "split": split, "seed": seed, **tiles}
        return self._measured(EVALUATE_RECONSTRUCTIONS, given, overrides)

    def _drawn(self, sampler: str | None, steps: int | None, guidance: float | str | None) -> dict[str, Any]:
        return {"sampler": sampler, "sampler.steps": steps, **_guidance(guidance, self.config)}

    def _measured(self, command: Command[Any], given: Mapping[str, Any], overrides: Sequence[str]) -> Results:
        return _results_of(self._work(command, given, overrides))

    def _work(self, command: Command[Any], given: Mapping[str, Any], overrides: Sequence[str]) -> Work:
        own = {"run": str(self.path), "weights": self._weights, "accelerator": self._accelerator, **given}
        return _work_of(command, own, overrides, self._models)

    def __repr__(self) -> str:
        model = self.config
        return f"<{model.experiment}, {model.channels}x{model.image_size}x{model.image_size}, {self.path}>"


def evaluate_samples(
    samples: str | Path, *, data: str | None, metrics: str, n: int | None, accelerator: str, overrides: Sequence[str]
) -> Results:
    """See `difflab.evaluate`."""
    _one_of("accelerator", accelerator, get_args(WorkConfig.model_fields["accelerator"].annotation))
    given = {"samples": _path("samples", samples), "data": data, "metrics": metrics, "n": n, "accelerator": accelerator}
    models = models_on(resolve_accelerator(accelerator))
    return _results_of(_work_of(EVALUATE_SAMPLES, given, overrides, models))


def _work_of(command: Command[Any], given: Mapping[str, Any], overrides: Sequence[str], models: StoredModels) -> Work:
    words = [f"{key}={_word(value)}" for key, value in given.items() if value is not None]
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r}: write a list, as in overrides=[{overrides!r}]")
    for override in overrides:
        _refuse_without_effect(override, command)
    argv = [*words, *overrides]
    config, plain = compose_and_validate(command.primary, command.config, command.complete(argv))
    if config.devices != 1:
        raise UserError(f"devices={config.devices}: from Python one process works; use `difflab {command.name}`")
    return command.work(config, plain, argv, Machine(Processes(), models))


def _results_of(work: Work) -> Results:
    assert isinstance(work, Measuring)
    work.measurement.prepare()
    return Results(work.measurement.results())


class Images(Sequence["Image"]):
    """Samples: a sequence of images, which a notebook shows as a grid.

    tensor: uint8 [n, C, H, W]. requested: the condition of each, by field: `label` list[int], `caption` list[str].
    shows: the same in words, classes by their names; None if nothing was requested.
    """

    def __init__(
        self, tensor: Tensor, requested: Mapping[str, Sequence[Any]], shows: Sequence[str] | None = None
    ) -> None:
        self.tensor = tensor
        self.requested = dict(requested)
        self.shows = shows

    def grid(self, columns: int = 8) -> Image:
        """Returns all samples as one image, row by row, each with its condition below it.

        Raises UserError if `columns` is out of range.
        """
        if columns < 1:
            raise UserError(f"columns={columns}: give 1 or more")
        return make_grid(self.tensor, columns, min_side=GRID_MIN_SIDE, labels=self.shows)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `000000.png`, ... to a folder, created if missing, with `000000.txt` of a caption beside it.

        Returns the paths of the images. Existing files are replaced.
        """
        folder = Path(folder)
        require_folder("folder", folder)
        with machine_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / picture_name(number) for number in range(len(self))]
        for number, caption in enumerate(self.requested.get("caption", [])):
            write_caption(folder, number, caption)
        for path, image in zip(paths, self.tensor, strict=True):
            save_picture(to_pil(image), path, synced=False)
        return paths

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: Any) -> Any:
        """Returns one image or, for a slice, an `Images` of those samples."""
        if isinstance(index, slice):
            requested = {field: values[index] for field, values in self.requested.items()}
            return Images(self.tensor[index], requested, None if self.shows is None else self.shows[index])
        return to_pil(self.tensor[index])

    def __iter__(self) -> Iterator[Image]:
        return map(to_pil, self.tensor)

    def __repr__(self) -> str:
        n, *shape = self.tensor.shape
        return f"<{n} samples, {'x'.join(map(str, shape))}>"

    def _repr_png_(self) -> bytes | None:
        return self.grid()._repr_png_() if len(self) else None


class Results(list[Result]):
    """Metrics with their protocols; `results["fd-lite0@512"]` is the value of one, and a notebook shows a table."""

    def __getitem__(self, which: Any) -> Any:
        if not isinstance(which, str):
            return super().__getitem__(which)
        found = [result.value for result in self if result.name == which]
        if not found:
            raise KeyError(f"{which}: measured are {', '.join(result.name for result in self)}")
        return found[0]

    def __repr__(self) -> str:
        return "\n".join("  ".join(row) for row in table_of(self))

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in table_of(self))
        return f"<table><tr><th>metric</th><th>value</th><th>spread</th><th>protocol</th></tr>{rows}</table>"


def _requested(
    classes: Sequence[int | str] | None,
    prompts: Sequence[str] | str | None,
    images: str | Path | None,
    mask: str | Path | None,
    start: float | None,
) -> dict[str, Any]:
    texts = prompts if prompts is None or isinstance(prompts, str) else _listed("prompts", prompts)
    if isinstance(texts, list):
        texts = [literal(text) if isinstance(text, str) else text for text in texts]
    numbers = None if classes is None else _listed("classes", classes)
    paths = {"images": images, "mask": mask}
    shown = {"classes": numbers, "prompts": texts, "start": start}
    return shown | {key: None if path is None else _path(key, path) for key, path in paths.items()}


def _listed(key: str, given: Any) -> list[Any]:
    """Converts values for the command line; arrays and their numbers become Python's."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UserError(f"{key}={given!r}: write a list, as in {key}=[{given!r}]")
    return [one.tolist() if hasattr(one, "tolist") else one for one in given]


def _path(key: str, given: Any) -> str:
    if not isinstance(given, str | PathLike):
        raise UserError(f"{key}: expected a path as text or as a Path, not {type(given).__name__}")
    return str(given)


def _one_of(key: str, given: Any, known: Sequence[str | None]) -> None:
    if given not in known:
        raise UserError(f"{key}={given!r}: choose one of {', '.join(repr(one) for one in known)}")


def _refuse_without_effect(override: str, command: Command[Any]) -> None:
    """Raises UserError for what the command would write or log, and for another model or other samples."""
    key, _, value = override.lstrip("+").partition("=")
    if re.split(r"[./@]", key)[0] in WRITING and value not in ("", "null", "none", "false", "0"):
        raise UserError(
            f"{override}: from Python nothing is written except by images.save(folder): leave it out, or use "
            f"`difflab {command.name}`"
        )
    if key in LOADED:
        raise UserError(f"{override}: it is what this was loaded from; give it to difflab.load or difflab.evaluate")


def _guidance(requested: float | str | None, model: ModelConfig) -> dict[str, Any]:
    if requested is None or isinstance(requested, str):
        return {"guidance": requested}
    without = isinstance(model, DrawingModelConfig) and not model.guidance.acts
    return {"guidance": "classifier_free" if without else None, "guidance.scale": requested}


def _word(value: Any) -> str:
    """Formats a value for the command line; plain words stay as they are, because they may be a choice of a group."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w/]*", value) else in_hydra(value)


def _joined(batches: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    joined: dict[str, list[Any]] = {}
    for batch in batches:
        for field, values in batch.items():
            joined.setdefault(field, []).extend(values.tolist() if isinstance(values, Tensor) else values)
    return joined
