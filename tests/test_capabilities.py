"""Nobody outside a part's own folder asks what concrete task, network, conditioner, process or metric something is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from difflab.config.axes import CONDITIONERS, DIFFUSIONS, METRICS, NETWORKS
from difflab.config.task import TASKS

SRC = Path(__file__).parents[1] / "src" / "difflab"
BASES = {"UNetBase", "Frozen", "ConditionerBase", "Conditioner", "ConditionerSet", "Backbone"}
"""What all of a kind have in common."""


def defined_in(*places: str) -> set[str]:
    """The names of the classes in these files and folders."""
    files = [path for place in places for path in [SRC / place, *(SRC / place).rglob("*.py")] if path.is_file()]
    trees = (ast.parse(path.read_text()) for path in files)
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)} - BASES


OWNERS = [
    *((f"tasks/{name}/",) for name in TASKS),
    ("networks/", "config/network.py"),
    ("conditioning/", "config/conditioning.py"),
]
METRIC_OWNERS = {
    kind: (f"{METRICS[kind].builder.partition(':')[0].removeprefix('difflab.').replace('.', '/')}.py",)
    for kind in METRICS
}
"""The file of each metric."""
PROCESSES = ("diffusion/", "config/diffusion.py")
CLASSES = {
    **{name: owner for owner in OWNERS for name in defined_in(*owner)},
    **dict.fromkeys(["GaussianProcess", "ContinuousProcess", "LevelTable"], PROCESSES),
    **{kind.config.__name__: PROCESSES for kind in DIFFUSIONS.values()},
    **{METRICS[kind].config.__name__: owner for kind, owner in METRIC_OWNERS.items()},
    **{METRICS[kind].builder.partition(":")[2]: owner for kind, owner in METRIC_OWNERS.items()},
}
KINDS = {
    **METRIC_OWNERS,
    **dict.fromkeys(NETWORKS, OWNERS[-2]),
    **dict.fromkeys(CONDITIONERS, OWNERS[-1]),
    **dict.fromkeys(DIFFUSIONS, PROCESSES),
}
NAMES = {name: (f"tasks/{name}/",) for name in TASKS}


def questions(code: str) -> Iterator[tuple[int, str]]:
    """(line, what is asked for) of every question in a file after one concrete class, kind or task."""
    for node in ast.walk(ast.parse(code)):
        asked = sides_of(node)
        about_kinds = isinstance(node, ast.match_case) or any("kind" in ast.unparse(side) for side in asked)
        names = {**NAMES, **(KINDS if about_kinds else {})}
        for part in (inner for side in asked for inner in ast.walk(side)):
            match part:
                case ast.Name(name) | ast.Attribute(attr=name) if name in CLASSES:
                    yield part.lineno, name
                case ast.Constant(str(value)) if value in names:
                    yield part.lineno, value


def sides_of(node: ast.AST) -> list[ast.AST]:
    """What a comparison, a look at a type or a case compares."""
    match node:
        case ast.Call(func=ast.Name("isinstance" | "issubclass"), args=[_, kind]):
            return [kind]
        case ast.Compare():
            return [node.left, *node.comparators]
        case ast.match_case():
            return [node.pattern]
    return []


def owner_of(asked: str) -> tuple[str, ...]:
    return CLASSES.get(asked) or NAMES.get(asked) or KINDS[asked]


def test_everybody_asks_for_what_a_thing_can_do() -> None:
    wrong = []
    for path in sorted(SRC.rglob("*.py")):
        place = path.relative_to(SRC).as_posix()
        if place.startswith("interop/"):
            continue
        wrong += [
            f"{place}:{line} asks for {asked}"
            for line, asked in questions(path.read_text())
            if not place.startswith(owner_of(asked))
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(config, UNetEncoderConfig)",
        "isinstance(config, int | OracleConfig)",
        "isinstance(metric, KernelDistance)",
        "metric.kind == 'fid'",
        "isinstance(model, str | network.UNet)",
        "isinstance(one, (int, ClassConditioner))",
        "isinstance(process, GaussianProcess)",
        "diffusion.kind == 'continuous'",
        "issubclass(kind, DenoisingTrainConfig)",
        "type(module) is NoisyClassifierModule",
        "config.task == 'denoising'",
        "config.task not in ('denoising', 'other')",
        "'noisy_classifier' != plain['task']",
        "conditioner.kind == 'class'",
        "plain.get('kind') in {'low_res', 'x'}",
        "match config:\n    case UNetConfig(): pass",
        "match config.kind:\n    case 'unet': pass",
    ],
)
def test_a_question_is_found(code: str) -> None:
    assert len(list(questions(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(config, DrawingModelConfig)",
        "isinstance(conditioner, Conditioner)",
        "field == 'class'",
        "schedule.kind == 'cosine'",
        "build(UNetConfig, kind='unet')",
    ],
)
def test_what_is_no_question_is_left_alone(code: str) -> None:
    assert not list(questions(code))
