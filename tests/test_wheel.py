from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PARTS = ("src", "conf", "sweeps", "slurm", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, tree / part)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (tree / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel, apart from the checkout; the dependencies are this environment's."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    ran = subprocess.run([*command, str(wheel)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return target


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def test_the_wheel_holds_every_configuration_and_nothing_of_the_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configurations = {f"difflab/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(configurations) > 30
    assert configurations <= names
    kinds = (".py", ".html", ".css", ".js")
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if path.suffix in kinds}
    assert modules <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"difflab"}
    assert not [name for name in names if "test" in name.lower()]


def test_the_installed_command_finds_its_configuration(installed: Path) -> None:
    ran = run(installed, "-c", "import difflab, difflab.conf_dir as c; print(difflab.__file__); print(c.conf_dir())")
    assert ran.stdout.splitlines() == [str(installed / "difflab" / "__init__.py"), str(installed / "difflab" / "conf")]
    ran = run(installed, "-m", "difflab.cli", "train", "--cfg", "job", "--resolve", "experiment=ddpm/shapes32")
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(ran.stdout)["data"]["path"] == "data/shapes32_simple"
    program = run(installed, str(installed / "bin" / "difflab"), "--version")
    assert program.stdout.startswith("difflab ")


def test_the_installed_command_makes_data_and_trains(installed: Path, tmp_path: Path) -> None:
    from tiny_runs import TRAINING

    make = ("data", "make", "source=shapes", "out=data", "resolution=16", "n=16", "val=4")
    assert run(installed, "-m", "difflab.cli", *make).returncode == 0
    trained = run(installed, "-m", "difflab.cli", "train", *TRAINING, "data.path=data", "name=wheel")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / "ddpm" / "shapes32" / "wheel" / "weights" / "ema.safetensors").is_file()
