"""The house rules that a machine can hold: imports run one way, and light commands stay light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "difflab"

LAYERS = [
    {
        "types",
        "errors",
        "machine",
        "streams",
        "console",
        "checkpoints",
        "jsonl",
        "signals",
        "rank_logging",
        "lock",
        "environment",
        "seeding",
        "images",
        "cache",
        "conf_dir",
        "config",
        "progress",
        "files",
        "near",
        "frozen_files",
        "hub",
        "lettering",
        "devices",
        "compiling",
        "deferred",
        "optimizer",
    },
    {"diffusion", "text"},
    {"networks", "data"},
    {"conditioning", "requests"},
    {"metrics", "interop"},
    {"parts"},
    {"averaging"},
    {"tasks"},
    {"pipelines"},
    {"forced_choice"},
    {"tracking"},
    {"callbacks"},
    {"commands"},
    {"cli", "api"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# Neither of these may import the other, although they stand side by side.
STRANGERS = [
    ("requests", "conditioning"),
    ("networks", "data"),
    ("metrics", "interop"),
    ("metrics", "conditioning"),
    ("requests", "metrics"),
]
FORBIDDEN = {
    "diffusion": {"lightning", "hydra", "omegaconf", "wandb", "pydantic", "torchvision"},
    "networks": {"lightning", "hydra", "omegaconf", "wandb"},
    "config": {"torch", "lightning", "hydra", "omegaconf", "wandb", "numpy", "torchmetrics"},
    "averaging": {"lightning", "hydra", "omegaconf", "wandb", "pydantic", "torchvision"},
    "types": {"lightning", "hydra", "wandb", "numpy"},
}
NOISE = ("difflab.diffusion", "difflab.conditioning")
HEAVY = {"lightning", "wandb", "torchvision", "torchmetrics", "torch_fidelity", "transformers", "diffusers"}


LEAF = "config"
"""A file by this name inside a part belongs to the configuration: it is validated without torch."""


def part_of(*parts: str) -> str:
    """The part that a module belongs to, of which the names below `difflab` are given."""
    return "config" if parts[-1] == LEAF or parts == ("tasks", "registry") else parts[0]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SRC.rglob("*.py")):
        yield part_of(*path.relative_to(SRC).with_suffix("").parts), path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, only for type checkers) of every import statement in a file."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module, id(node) in typing_only


def test_every_part_has_its_place() -> None:
    unknown = {part for part, _ in modules()} - LEVEL.keys() - {"__init__", "__main__"}
    assert not unknown, f"say in this test where {sorted(unknown)} stands in the order of imports"


def test_imports_run_one_way() -> None:
    wrong = []
    for part, path in modules():
        for name, typing_only in imports(path):
            if not name.startswith("difflab.") or typing_only or part == "__init__":
                continue
            target = part_of(*name.split(".")[1:])
            if LEVEL[target] > LEVEL[part] or (part, target) in STRANGERS or (target, part) in STRANGERS:
                wrong.append(f"{path.relative_to(SRC)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", FORBIDDEN)
def test_low_layers_know_no_frameworks(part: str) -> None:
    wrong = [
        f"{path.relative_to(SRC)} imports {name}"
        for owner, path in modules()
        if owner == part
        for name, _ in imports(path)
        if name.split(".")[0] in FORBIDDEN[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_what_all_tasks_share_knows_nothing_of_noise() -> None:
    shared = [SRC / "tasks" / name for name in ("training_module.py", "windows.py")]
    wrong = [
        name for path in shared for name, _ in imports(path) if name.startswith(("difflab.diffusion", "difflab.cond"))
    ]
    assert not wrong, wrong


def _loaded(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_difflab_is_light() -> None:
    assert not _loaded("import difflab, difflab.cli") & (HEAVY | {"torch", "hydra", "pydantic"})


def test_help_needs_no_framework() -> None:
    assert not _loaded("import difflab.cli; difflab.cli.main(['--help'])") & (HEAVY | {"torch", "hydra"})


def test_validating_a_configuration_needs_no_framework() -> None:
    code = (
        "from difflab.commands.composing import compose_and_validate\n"
        "from difflab.config.train import TrainConfig\n"
        "compose_and_validate('train', TrainConfig, ['experiment=ddpm/shapes32'])"
    )
    assert not _loaded(code) & (HEAVY | {"torch"})
