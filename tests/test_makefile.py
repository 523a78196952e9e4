from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PHONY = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[0].split()


def make(*arguments: str) -> str:
    return subprocess.run(["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout


def test_help_lists_every_target_with_a_line() -> None:
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", make("help"), re.MULTILINE))
    assert set(listed) == set(PHONY)
    assert make("--no-print-directory") == make("--no-print-directory", "help"), "make alone shows the help"


def test_every_target_is_there() -> None:
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
    assert set(targets) == set(PHONY)


def test_documents_name_targets_that_exist() -> None:
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:`|^|\()make ([a-z-]+)", document.read_text(), re.MULTILINE))
        assert named <= set(PHONY), document.name


def test_the_demo_is_made_of_commands_that_exist() -> None:
    from difflab.cli import COMMANDS

    used = re.findall(r"\$\(DIFFLAB\) (\w+)", MAKEFILE)
    assert {"data", "train", "sample", "evaluate"} <= set(used) <= set(COMMANDS)
