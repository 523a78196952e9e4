from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from difflab.errors import UserError
from difflab.tracking.sweep_file import Sweep, read_sweep

ROOT = Path(__file__).parents[2]
COMMAND = ["${env}", "${program}", "train", "${args_no_hyphens}"]


def write(folder: Path, parameters: dict[str, Any], **keys: Any) -> Path:
    """A sweep file; a key that is None is left out."""
    content = {"program": "difflab", "method": "grid", "parameters": parameters, "command": COMMAND, **keys}
    path = folder / "mine.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)
    )
    return path


def read(folder: Path, parameters: dict[str, Any], **keys: Any) -> Sweep:
    return read_sweep(write(folder, parameters, **keys))


def refusal(folder: Path, parameters: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(UserError) as error:
        read(folder, parameters, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


TWO_AXES = {"experiment": {"value": "ddpm/shapes32"}, "a.lr": {"values": [0.1, 0.2]}, "b": {"values": ["x", "y", "z"]}}


def test_the_grid_is_every_combination_the_last_parameter_fastest(tmp_path: Path) -> None:
    sweep = read(tmp_path, TWO_AXES)
    points = sweep.points()
    assert (sweep.name, sweep.command, sweep.swept) == ("mine", "train", ["a.lr", "b"])
    assert [point.number for point in points] == [1, 2, 3, 4, 5, 6]
    assert [tuple(point.values.values()) for point in points] == [(lr, b) for lr in (0.1, 0.2) for b in "xyz"]
    assert points[3].arguments == ("experiment=ddpm/shapes32", "a.lr=0.2", "b=x")
    assert points[3].label == "a.lr=0.2 b=x"
    assert points[3].slug == "lr-0.2_b-x"
    assert len({point.digest for point in points}) == 6


def test_the_commands_are_those_of_wandb(tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    values = {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "word",
        "e": "null",
        "f": [8, 4],
        "g": 1e-5,
        "h": "v,w",
        "i": ["x", "y"],
    }
    (point,) = read(tmp_path, {key: {"value": value} for key, value in values.items()}).points()
    theirs = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    parser = OverridesParser.create()

    def parsed(arguments: list[str]) -> list[tuple[str, Any]]:
        overrides = parser.parse_overrides(arguments)
        return [(o.key_or_group, o.is_sweep_override() or o.value()) for o in overrides]

    assert parsed(list(point.arguments)) == parsed(theirs["args_no_hyphens"])


def test_words_of_the_command_stay_where_they_are(tmp_path: Path) -> None:
    command = ["${env}", "difflab", "evaluate", "n=8", "${args_no_hyphens}", "seed=1"]
    sweep = read(tmp_path, {"run": {"value": "r"}, "s": {"values": [1, 2]}}, command=command, name="own-name")
    assert (sweep.name, sweep.command) == ("own-name", "evaluate")
    assert sweep.points()[1].arguments == ("n=8", "run=r", "s=2", "seed=1")


def test_overrides_replace_what_the_file_fixes(tmp_path: Path) -> None:
    sweep = read(tmp_path, {"n": {"value": 512}, "s": {"values": [1, 2]}})
    points = sweep.points(["n=8", "+new.key=1", "~gone"])
    assert points[0].arguments == ("s=1", "n=8", "+new.key=1", "~gone")
    assert points[0].digest != sweep.points()[0].digest
    assert points[0].slug == sweep.points()[0].slug


@pytest.mark.parametrize(
    ("override", "line"),
    [("s=3", "s is what this sweep varies"), ("word", "'word' is not key=value"), ("=1", "not key")],
)
def test_overrides_that_cannot_be(override: str, line: str, tmp_path: Path) -> None:
    sweep = read(tmp_path, {"n": {"value": 512}, "s": {"values": [1, 2]}})
    with pytest.raises(UserError, match=line):
        sweep.points([override])


def test_where_nothing_varies_every_parameter_counts(tmp_path: Path) -> None:
    (point,) = read(tmp_path, {"n": {"value": 512}, "s": {"values": [1]}}).points()
    assert point.values == {"n": 512, "s": 1}


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "program: difflab\nmethod: grid\nparameters: {lr: {values: [1e-3, 2.0e-3, word, [8, 4]]}}\n"
        'command: ["${program}", train, "${args_no_hyphens}"]\n'
    )
    points = read_sweep(path).points()
    assert [point.values["lr"] for point in points] == [0.001, 0.002, "word", "[8,4]"]
    assert points[0].arguments == ("lr=1e-3",)


def test_no_two_points_share_a_slug(tmp_path: Path) -> None:
    values = ["a b", "a/b", "x" * 200, "x" * 201, "[8,4]"]
    slugs = [point.slug for point in read(tmp_path, {"s": {"values": values}}).points()]
    assert len(set(slugs)) == len(values)
    assert all(len(slug) < 100 and "/" not in slug and " " not in slug for slug in slugs)


def test_keys_with_one_last_word_keep_their_whole_names(tmp_path: Path) -> None:
    sweep = read(tmp_path, {"a.scale": {"values": [1, 2]}, "b.scale": {"values": [1, 2]}})
    assert sweep.points()[1].slug == "a.scale-1_b.scale-2"


ONE = {"s": {"values": [1, 2]}}


@pytest.mark.parametrize(
    ("parameters", "keys", "line"),
    [
        (ONE, {"method": "bayes"}, "method=bayes takes its points from a W&B server"),
        (ONE, {"method": "random"}, "`wandb sweep`"),
        (ONE, {"early_terminate": {"type": "hyperband"}}, "unknown key 'early_terminate'"),
        (ONE, {"program": "train.py"}, "program='train.py'"),
        (ONE, {"command": None}, "missing key 'command'"),
        (ONE, {"command": ["${program}", "doctor", "${args_no_hyphens}"]}, "one of train, sample, evaluate"),
        (ONE, {"command": ["python", "train", "${args_no_hyphens}"]}, "${program}"),
        (ONE, {"command": ["${program}", "train", "${args}"]}, "${args_no_hyphens} once"),
        (ONE, {"command": ["${program}", "train", "-m", "${args_no_hyphens}"]}, "'-m', which is not key=value"),
        (ONE, {"command": ["${program}", "train", "a=${envvar:X}", "${args_no_hyphens}"]}, "write its value"),
        ({}, {}, "parameters"),
        ({"s": {"min": 0.0, "max": 1.0}}, {}, "unknown key 'parameters.s.m"),
        ({"s": {"values": []}}, {}, "parameters.s.values"),
        ({"s": {"value": 1, "values": [1]}}, {}, "give either value"),
        ({"s": {}}, {}, "give either value"),
        ({"s": {"value": None}}, {}, 'write "null" in quotes'),
        ({"s": {"values": [1, {"a": 1}]}}, {}, "is a mapping"),
        ({"s": {"values": [1, 2, 1.0]}}, {}, "parameters.s: 1 and 1.0 are the same value; give each once"),
        ({"s": {"values": ["1e-1", 0.1]}}, {}, "parameters.s: '1e-1' and 0.1 are the same value"),
        ({"s": {"values": [[1, 2], [1, 2]]}}, {}, "parameters.s: [1, 2] and [1, 2] are the same value"),
        ({"s": {"parameters": {"a": {"value": 1}}}}, {}, "unknown key 'parameters.s.parameters'"),
    ],
)
def test_mistakes_in_a_file_are_one_line(
    parameters: dict[str, Any], keys: dict[str, Any], line: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, parameters, **keys)
    assert message.startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert line in message


def test_what_is_no_sweep_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_sweep(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="not a sweep file"):
        read_sweep(tmp_path / "list.yaml")
    with pytest.raises(UserError, match="is no file; give a sweep file"):
        read_sweep(tmp_path)


@pytest.mark.parametrize("content", [b"a: [1\n", b"\xff\xfe\x00a: 1", b"[" * 20_000, b"a: 2020-13-45\n"])
def test_a_file_that_is_no_yaml_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "torn.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"^\S+torn.yaml is not YAML: .*$"):
        read_sweep(tmp_path / "torn.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_of_the_project_can_be_read(path: Path) -> None:
    assert len(read_sweep(path).points()) > 1


def test_the_same_arguments_of_another_command_are_another_point(tmp_path: Path) -> None:
    digests = set()
    for command in ("train", "sample", "evaluate"):
        words = ["${env}", "${program}", command, "${args_no_hyphens}"]
        digests |= {point.digest for point in read(tmp_path, {"seed": {"values": [0, 1]}}, command=words).points()}
    assert len(digests) == 6


@pytest.mark.parametrize(("letters", "cut"), [(78, False), (79, True)])
def test_a_slug_is_cut_where_it_is_longer_than_80(letters: int, cut: bool, tmp_path: Path) -> None:
    (point,) = read(tmp_path, {"a": {"values": ["v" * letters]}}).points()
    whole = f"a-{'v' * letters}"
    assert (point.slug != whole) is cut
    assert point.slug.startswith(whole[:80])
