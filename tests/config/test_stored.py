"""A configuration that cannot be read is a refusal in one line, never a permission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from difflab.commands.composing import compose_and_validate
from difflab.config.stored import read_config, read_train_config
from difflab.config.train import TrainConfig
from difflab.errors import UserError

BROKEN = {
    "no YAML": b"seed: [1,\n",
    "a tab": b"seed:\n\t- 1\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "zeros": b"\0" * 64,
    "a Python tag": b"!!python/object/apply:os.system ['true']\n",
    "a Python tag inside": b"seed: !!python/name:os.system\n",
    "an unknown tag": b"seed: !secret x\n",
    "empty": b"",
    "only a comment": b"# nothing\n",
    "null": b"null\n",
    "an empty mapping": b"{}\n",
    "a list": b"- seed\n",
    "a text": b"seed\n",
    "deep": b"[" * 20_000,
    "two documents": b"a: 1\n---\nb: 2\n",
    "an impossible date": b"seed: 2024-13-45\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    for read in (read_config, read_train_config):
        with pytest.raises(UserError, match=r"config\.yaml") as error:
            read(path)
        assert "\n" not in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(("content", "line"), [(b"]\n", 1), (b"seed: 1\nname: }\n", 2)])
def test_the_line_that_cannot_be_read_is_named_as_editors_count(content: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"config\.yaml, line {line} cannot be read as YAML"):
        read_config(path)


def test_a_missing_one_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run directory: it has no config\.yaml"):
        read_config(tmp_path / "config.yaml")


def test_what_todays_code_does_not_know_is_said_and_by_whom(tmp_path: Path) -> None:
    config = compose_and_validate("train", TrainConfig, ["experiment=ddpm/shapes32"])[0]
    path = tmp_path / "config.yaml"

    def write(changes: dict[Any, Any]) -> None:
        path.write_text(yaml.safe_dump({**config.plain(), **changes}))

    write({})
    assert read_train_config(path) == config
    cases: list[tuple[dict[Any, Any], str]] = [
        ({"quantum": 1}, "unknown key 'quantum'"),
        ({"init": {"kind": "teacher"}}, "init.kind='teacher' is not known"),
        ({1: 2}, "1"),
        ({"seed": -1}, "seed=-1"),
    ]
    for changes, part in cases:
        write(changes)
        with pytest.raises(UserError, match="another version of difflab") as error:
            read_train_config(path)
        assert part in str(error.value)
        assert "another configuration" not in str(error.value)


def test_an_alias_of_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: &a {b: *a}\n")
    with pytest.raises(UserError):
        read_train_config(tmp_path / "config.yaml")
