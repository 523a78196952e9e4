"""`difflab doctor`: installed packages, devices, and problems that the user should fix."""

from __future__ import annotations

import inspect
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

from difflab import __version__
from difflab.cache import cache_root
from difflab.commands.typer_app import run_typer
from difflab.config.plugins import Plugin, find
from difflab.console import console
from difflab.errors import UserError, first_line

MALICIOUS_LIGHTNING = ("2.6.2", "2.6.3")
LOW_DISK_GB = 5.0
PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "webdataset",
    "wandb",
    "torchmetrics",
    "torch-fidelity",
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@dataclass(frozen=True)
class Finding:
    """One line of the report; a `problem` makes the exit status 1."""

    topic: str
    text: str
    status: Literal["ok", "note", "problem"] = "ok"


@app.command()
def doctor() -> None:
    """Report what difflab finds on this machine; exit status 1 if something must be fixed."""
    from rich.table import Table
    from rich.text import Text

    findings = list(examine())
    table = Table(title=f"difflab {__version__}", show_header=False, box=None)
    marks = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("problem", "red")}
    for finding in findings:
        table.add_row(Text(*marks[finding.status]), finding.topic, finding.text)
    console().print(table)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Yields the lines of the report in order."""
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    # Plugins are imported before torch, to see whether one of them imports it; they are reported after the packages.
    find()
    yield from _packages()
    yield from _plugins()
    yield from _devices()
    yield from _places()
    yield from _weights()
    yield _tracking()


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "is not installed: run `make install` or `pip install difflab`", "problem")
            continue
        if name == "lightning" and version in MALICIOUS_LIGHTNING:
            yield Finding(name, f"{version} was a malicious release: upgrade to 2.6.4 or newer at once", "problem")
        else:
            yield Finding(name, version)
    try:
        import torchvision.ops  # noqa: F401 - the import itself is the check
    except (ImportError, RuntimeError) as error:
        mend = "install both from the same build"
        yield Finding("torchvision", f"does not fit this torch ({first_line(error)}): {mend}", "problem")


def _plugins() -> Iterator[Finding]:
    from difflab.commands.choices import unreadable_files
    from difflab.config.axes import every_choice
    from difflab.config.groups import conf_dirs

    reported = ""
    try:
        kinds = list(every_choice())
        conf_dirs()
    except UserError as error:
        # A broken plugin, or two that conflict; the loaded ones are listed all the same.
        kinds, reported = [], str(error)
        yield Finding("plugins", reported, "problem")
    for plugin in find():
        if plugin.error is not None:
            if plugin.error not in reported:
                yield Finding("plugin", f"{plugin} cannot be loaded ({plugin.error})", "problem")
            continue
        brought = [f"{axis}={name}" for axis, name, package in kinds if package == plugin.package]
        places = f"; conf in {plugin.conf}" if plugin.conf is not None else ""
        yield Finding("plugin", f"{plugin}: {', '.join(brought) or 'no choices'}{places}")
        if plugin.imports_torch:
            late = f"importing {plugin.module} imports torch, which slows down every --help"
            yield Finding("plugin", f"{plugin}: {late}: import it only in the modules of its builders", "note")
        yield from _builders(plugin) if kinds else ()
        for wrong in unreadable_files(plugin.conf):
            yield Finding("plugin", f"{plugin}: {wrong}", "problem")


def _builders(plugin: Plugin) -> Iterator[Finding]:
    """Problems of a plugin's builders, which commands import only when they build something."""
    from difflab.config.axes import builders_of
    from difflab.config.registry import load

    for axis, name, builder in builders_of(plugin.package):
        try:
            built_by = load(builder)
        except UserError as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - whatever their code raises is reported by name
            wrong = f"{builder!r} cannot be imported ({type(error).__name__}: {first_line(error)})"
        else:
            # A class, or an alternative constructor of one, such as `Sampler.from_config`.
            made = built_by if inspect.isclass(built_by) else getattr(built_by, "__self__", None)
            if not inspect.isclass(made) or not inspect.isabstract(made):
                continue
            missing = " and ".join(sorted(getattr(made, "__abstractmethods__", ())))
            wrong = f"{builder!r} cannot be instantiated: {made.__name__} must define {missing}"
        yield Finding("plugin", f"{plugin}: {axis}={name}: {wrong}", "problem")


def _devices() -> Iterator[Finding]:
    import torch

    from difflab.data.processes import cores
    from difflab.devices import fast_in_bf16

    number = torch.get_num_threads()
    threads = "1 thread" if number == 1 else f"{number} threads"
    bf16 = "multiplies in bf16, which auto precision uses" if fast_in_bf16("cpu") else "auto precision is fp32"
    yield Finding("cpu", f"{cores()} cores, torch uses {threads}; {bf16}")
    if not torch.cuda.is_available():
        yield Finding("gpu", "none that torch can use; everything runs on the CPU", "note")
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding(f"gpu {i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}")


def _places() -> Iterator[Finding]:
    from difflab.conf_dir import conf_dir
    from difflab.frozen_files import roots

    yield Finding("conf", str(conf_dir()))
    root = cache_root()
    yield Finding("cache", f"{root} (set DIFFLAB_CACHE to move it)")
    for folder in roots():
        if folder.is_dir():
            yield Finding("frozen parts", f"looked for in {folder} (DIFFLAB_WEIGHTS)")
        else:
            yield Finding("frozen parts", f"DIFFLAB_WEIGHTS={folder} is not a folder", "problem")
    for name, place in (("this directory", Path.cwd()), ("cache", _existing_parent(root))):
        free = shutil.disk_usage(place).free / 1e9
        if free < LOW_DISK_GB:
            yield Finding(name, f"only {free:.1f} GB free: checkpoints may not fit", "problem")
        if not os.access(place, os.W_OK):
            yield Finding(name, f"{place} is not writable", "problem")


def _weights() -> Iterator[Finding]:
    from difflab.metrics.extractors.inception import cached_weights

    found = cached_weights()
    if found is None:
        yield Finding("inception", "FID weights not found: metrics=fid50k will try a download", "note")
    else:
        yield Finding("inception", str(found))


def _tracking() -> Finding:
    from difflab.tracking.config import WandbConfig
    from difflab.tracking.wandb_environment import chosen_mode, key_source, server

    try:
        chosen = chosen_mode(WandbConfig())
    except UserError as error:
        return Finding("wandb", str(error), "problem")
    source = key_source()
    key = f"no API key for {server()}" if source is None else f"an API key is set for {server()} in {source}"
    unusable = chosen.needs_server and source is None
    mend = ": run `wandb login` or set WANDB_API_KEY" if unusable else ""
    return Finding("wandb", f"mode {chosen.mode} ({chosen.chosen_by}); {key}{mend}", "problem" if unusable else "ok")


def _existing_parent(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def main(argv: Sequence[str]) -> int:
    return run_typer(app, "doctor", argv)
