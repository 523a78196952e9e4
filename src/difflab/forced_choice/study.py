"""From the options of a page to the pictures that it shows, every mistake in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from difflab.console import printable, say_on_stderr
from difflab.errors import UserError
from difflab.forced_choice.drawn import Origin, SplitOriginals
from difflab.forced_choice.pictures import (
    NamedPictures,
    Pictures,
    Study,
    refuse_no_low_res,
    refuse_other_names,
    refuse_other_size,
    refuse_the_originals,
)
from difflab.forced_choice.protocol import Task


@dataclass(frozen=True)
class StudyOptions:
    """samples: folders or archives, each as PATH or NAME=PATH. origin: where originals lie that are not given."""

    samples: Sequence[str]
    originals: Path | None
    low_res: Path | None
    origin: Origin
    task: Task
    checks: int


def open_study(options: StudyOptions) -> Study:
    """The pictures of a page. Raises UserError for what does not belong together, and for what is missing."""
    models = _models(options.samples)
    first = next(iter(models.values()))
    given = None if options.originals is None else _given_originals(options, options.originals)
    small = None if options.low_res is None else NamedPictures(options.low_res, "--low-res")
    _call_alike([one for one in (given, *models.values(), small) if one is not None])
    originals, made = (given, None) if given is not None else _of_split(models, options)
    for samples in models.values():
        refuse_other_size(samples, originals)
    study = Study(_each_once(first, originals), models, originals, _needed(small or made, options, originals))
    refuse_the_originals(study)
    return study


def _call_alike(all_of_them: Sequence[NamedPictures]) -> None:
    named = next((one for one in all_of_them if not one.by_number), all_of_them[0])
    for other in all_of_them:
        refuse_other_names(other, named)


def _models(samples: Sequence[str]) -> dict[str, NamedPictures]:
    models: dict[str, NamedPictures] = {}
    for given in samples:
        name, path = _named(given)
        if name in models:
            raise UserError(f"--samples: two models are called {name}: name them, as in --samples sr3={path}")
        models[name] = NamedPictures(path, "--samples")
    return models


def _named(given: str) -> tuple[str, Path]:
    name, equals, path = given.partition("=")
    if equals and name and "/" not in name and not Path(given).exists():
        return printable(name), Path(path)
    whole = Path(given)
    return printable(whole.resolve().stem if whole.is_file() else whole.resolve().name), whole


def _given_originals(options: StudyOptions, path: Path) -> NamedPictures:
    for option, value in (
        ("--run", options.origin.run),
        ("--data", options.origin.path),
        ("--split", options.origin.split),
    ):
        if value is not None:
            raise UserError(f"--originals and {option} both say which the originals are: leave one of them out")
    if any(path.resolve() == _named(given)[1].resolve() for given in options.samples):
        raise UserError(f"--originals={printable(path)} is also among --samples: give the pictures of the model there")
    return NamedPictures(path, "--originals")


def _of_split(models: dict[str, NamedPictures], options: StudyOptions) -> tuple[SplitOriginals, Pictures | None]:
    """The originals of all models, which were conditioned on the same images."""
    found = [SplitOriginals(samples, options.origin) for samples in models.values()]
    first = found[0]
    for samples, other in zip(models.values(), found, strict=True):
        if other.source != first.source:
            raise UserError(
                f"{samples.shown} was drawn of {other.shown} ({other.size[0]} px), the first of {first.shown} "
                f"({first.size[0]} px): models on one page must be conditioned on the same images"
            )
    if options.low_res is not None:
        return first, None
    for samples, other in zip(models.values(), found, strict=True):
        if other.degraded != first.degraded:
            raise UserError(
                f"{samples.shown} was drawn of images that were degraded otherwise than those of the first: draw both "
                "with one seed and the same conditioning.low_res.degradation"
            )
    sizes = {one.size for one in (original.low_res() for original in found) if one is not None}
    if len(sizes) > 1:
        raise UserError(
            f"--samples: the models enlarge images of {' and '.join(f'{h} px' for h, _ in sorted(sizes))}: show models "
            "of one task on a page"
        )
    return first, first.low_res()


def _each_once(samples: NamedPictures, originals: Pictures) -> list[str]:
    """The names to take. Behind the last image of a split the first comes again."""
    if not isinstance(originals, SplitOriginals) or len(originals) >= len(samples.names):
        return list(samples.names)
    say_on_stderr(
        f"note: {originals.shown} has {len(originals)} images, of which {len(samples.names)} samples were drawn: "
        f"the first {len(originals)} are used"
    )
    return samples.names[: len(originals)]


def _needed(low_res: Pictures | None, options: StudyOptions, originals: Pictures) -> Pictures | None:
    reasons = list(_reasons(options))
    if not reasons:
        return None
    if low_res is None:
        raise UserError(f"{reasons[0]}: give --low-res FOLDER, or {'--task 2' if options.task == 1 else '--checks 0'}")
    refuse_no_low_res(low_res, originals)
    return low_res


def _reasons(options: StudyOptions) -> Iterator[str]:
    if options.task == 1:
        yield "task 1 shows the low resolution picture in the middle"
    if options.checks:
        yield "checks set the original against the bicubic enlargement of the low resolution picture"
