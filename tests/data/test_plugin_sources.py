"""Sources that installed packages bring."""

import json

import pytest

from difflab.cli import main
from plugin_packages import Packages, packages

__all__ = ["packages"]

SOURCE = '''
from pathlib import Path
from typing import Literal
from pydantic import Field
from difflab.config.axes import SOURCES
from difflab.config.source import SourceConfig

@SOURCES.register("{package}.parts:splits")
class GreysConfig(SourceConfig):
    """Grey squares."""

    kind: Literal["{kind}"] = "{kind}"
    n: int = Field(default=4, ge=1)
    """How many greys."""
'''
PARTS = """
import numpy as np
from difflab.data.bad_files import BadFile

class Greys:
    class_names = ["dark", "bright"]
    credit = {"licence": "CC0-1.0"}

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def sample(self, index):
        if index == 2:
            raise BadFile("the third grey is bad")
        return {"image": np.full((8, 8), 30 * index, np.uint8), "label": index % 2}

def splits(config):
    return {"train": Greys(config.n)}
"""


def install(packages: Packages, kind: str = "greys", distribution: str = "grey-pack") -> None:
    package = distribution.replace("-", "_")
    files = {f"{package}/__init__.py": SOURCE.format(package=package, kind=kind), f"{package}/parts.py": PARTS}
    packages.install(distribution, files)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_source_of_a_package_is_made_described_and_recorded(packages, tmp_path, capsys):
    install(packages)
    assert main(["data", "make", "source=greys", "out=o", "n=2"]) == 0
    assert "o: train 2 samples" in capsys.readouterr().out
    source = json.loads((tmp_path / "o/index.json").read_text())["source"]
    assert source == {
        "name": "greys",
        "kind": "greys",
        "n": 2,
        "credit": {"licence": "CC0-1.0"},
        "plugin": "grey-pack 1.0",
    }
    assert main(["data", "make", "source=greys", "help=true"]) == 0
    assert "  n=4  How many greys." in capsys.readouterr().out
    assert main(["data", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["greys"] == "Grey squares."
    assert main(["doctor"]) in (0, 1, 2)
    assert "source=greys" in " ".join(capsys.readouterr().out.split())


def test_a_bad_file_of_a_source_without_a_policy_ends_the_command(packages, capsys):
    install(packages)
    assert main(["data", "make", "source=greys", "out=o"]) == 2
    assert "the third grey is bad (repair or remove it)" in capsys.readouterr().err


def test_two_sources_by_one_name_are_refused_by_both(packages, capsys):
    install(packages, kind="shapes")
    assert main(["data", "make", "source=shapes", "out=o"]) == 2
    said = capsys.readouterr().err
    assert "source: two choices are named shapes" in said
    assert "grey_pack" in said


def test_a_source_that_is_gone_is_not_known(packages, capsys):
    install(packages)
    packages.uninstall_all()
    assert main(["data", "make", "source=greys", "out=o"]) == 2
    assert "source=greys is not known; choose one of folder, openmoji, shapes" in capsys.readouterr().err
