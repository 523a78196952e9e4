"""The shifts under which a stored model was measured, from its records, and its robustness as a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflab import jsonl
from difflab.errors import UserError
from difflab.files import write_text
from difflab.metrics.protocol import Result
from difflab.metrics.robustness import Accuracies, LogitLine
from difflab.tracking.csv_text import to_csv
from difflab.tracking.plot import save_chart

RECORDS = "evaluations.jsonl"
METRIC = "zero-shot-top1"
OF_THE_MODEL = ("parameters.weights", "parameters.precision", "parameters.device")
"""Fields of a protocol that may differ between the models that are compared."""
SIDE = 300
CURVE = [number / 200 for number in range(1, 200)]


@dataclass(frozen=True)
class Compared:
    """One shift: its name, the accuracies of the model and of each baseline that was measured under it, the line of
    the baselines, None if they are too few, and the robustness of the model."""

    shift: str
    model: Accuracies
    baselines: Mapping[str, Accuracies]
    line: LogitLine | None
    effective: float | None
    relative: Mapping[str, float]


def shifts_of(run: Path, standard: str | None) -> dict[str, tuple[str, Accuracies]]:
    """The shifts under which a model was measured: (in words, accuracies) by what was measured, the newest of each.

    standard: the split, or the data set and the split (imagenet/val), whose accuracy is the standard one of other data;
    corrupted and attacked images have their own. None leaves other data out.
    Raises UserError if the model has no record of the standard images.
    """
    found = [result for result in _results_of(run) if result.metric == METRIC]
    plain = {_key_of(one): one for one in found if "top1_unchanged" not in one.details}
    shifts = {}
    for one in found:
        unchanged = one.details.get("top1_unchanged")
        if isinstance(unchanged, int | float):
            shifts[_key_of(one)] = (_in_words(one), Accuracies(float(unchanged), one.value, one.protocol.n))
    if standard is None:
        return shifts
    usual = {key: one for key, one in plain.items() if f"/{_images_of(one)}".endswith(f"/{standard}")}
    if not usual:
        measured = ", ".join(dict.fromkeys(map(_images_of, plain.values()))) or "nothing"
        raise UserError(
            f"--standard {standard}: {run} has no zero-shot measurement of it, only of {measured}: give one of these"
        )
    for key, one in plain.items():
        for usual_key, reference in usual.items():
            if key not in usual and _prompted(one) == _prompted(reference):
                n = min(one.protocol.n, reference.protocol.n)
                shifts[f"{usual_key} {key}"] = (_in_words(one), Accuracies(reference.value, one.value, n))
    return shifts


def write_robustness(rows: Sequence[Compared], path: Path) -> None:
    """A CSV row per shift and model: shift, model (empty for the one that is measured), standard, shifted, effective,
    relative (of the model to this baseline)."""
    table: list[tuple[str | float | None, ...]] = []
    for one in rows:
        table.append((one.shift, "", one.model.standard, one.model.shifted, one.effective, None))
        for name, accuracies in one.baselines.items():
            table.append((one.shift, name, accuracies.standard, accuracies.shifted, None, one.relative[name]))
    write_text(path, to_csv(("shift", "model", "standard", "shifted", "effective", "relative"), table))


def plot_robustness(rows: Sequence[Compared], path: Path) -> None:
    """Writes `path` (SVG) and a PNG beside it: a panel per shift, accuracy under it over the standard one.

    The line of the baselines is drawn, and a dashed one where both are equal.
    """
    import altair

    def panel(one: Compared) -> Any:
        across = altair.X("standard:Q").title("standard accuracy").scale(domain=[0, 1])
        up = altair.Y("shifted:Q").title("accuracy under the shift").scale(domain=[0, 1])
        points = [
            {"standard": each.standard, "shifted": each.shifted, "of": kind}
            for kind, accuracies in (("model", [one.model]), ("baselines", one.baselines.values()))
            for each in accuracies
        ]
        equal = altair.Chart(altair.Data(values=[{"standard": p, "shifted": p} for p in (0, 1)]))
        layers: list[Any] = [equal.mark_line(strokeDash=[4, 4], color="#aaaaaa").encode(x=across, y=up)]
        if one.line is not None:
            curve = [{"standard": p, "shifted": one.line.expected(p, one.model.n)} for p in CURVE]
            layers.append(altair.Chart(altair.Data(values=curve)).mark_line(color="#777777").encode(x=across, y=up))
        dots = altair.Chart(altair.Data(values=points)).mark_point(filled=True, size=70)
        layers.append(dots.encode(x=across, y=up, color=altair.Color("of:N").title(None)))
        return altair.layer(*layers).properties(width=SIDE, height=SIDE, title=one.shift)

    save_chart(altair.concat(*map(panel, rows), columns=3), path)


def _results_of(run: Path) -> list[Result]:
    records = [record for record in jsonl.read(run / RECORDS) if record.get("metric") == METRIC]
    return [Result.from_json(json.dumps(record)) for record in records]


def _key_of(one: Result) -> str:
    measured = {key: value for key, value in one.protocol.measured().items() if key not in OF_THE_MODEL}
    return json.dumps(measured, sort_keys=True)


def _images_of(one: Result) -> str:
    assert one.protocol.reference is not None, "it is of images"
    return f"{one.protocol.reference.name}/{one.protocol.reference.split}"


def _prompted(one: Result) -> dict[str, object]:
    """How images were classified, whatever the names of their classes."""
    others = ("classes", "prompts_sha256", *(key.removeprefix("parameters.") for key in OF_THE_MODEL))
    return {key: value for key, value in one.protocol.parameters.items() if key not in others}


def _in_words(one: Result) -> str:
    how = one.protocol.parameters
    shift = _images_of(one)
    if "corruption" in how:
        shift = f"{how['corruption']} of severity {how['severity']}"
    elif "attack" in how:
        steps = f" in {how['steps']} steps" if "steps" in how else ""
        shift = f"{how['attack']} within {float(str(how['epsilon'])) * 255:.3g}/255{steps}"
    return f"{shift} ({one.protocol.name}, templates: {how['templates']})"
