"""The run directory: all files of one run, and what it was started with."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from difflab.checkpoints import LAST, newest_checkpoint
from difflab.config.stored import read_config
from difflab.console import say_on_stderr
from difflab.data.processes import cores
from difflab.errors import UserError
from difflab.files import write_keeping_older
from difflab.rank_logging import is_said_here

_OF_LIGHTNING_ALONE = ("Tip: ", "`weights_only` was not set")
"""What Lightning says in every run: products to try, and an argument that difflab leaves to it."""

_ALLOWED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+,-]*")
_ADJECTIVES = [
    "amber",
    "brisk",
    "calm",
    "coral",
    "dusky",
    "eager",
    "fern",
    "gentle",
    "hazel",
    "ivory",
    "jolly",
    "keen",
    "lunar",
    "mellow",
    "noble",
    "opal",
    "plain",
    "quiet",
    "ruby",
    "sunny",
]
_NOUNS = [
    "anchor",
    "beacon",
    "canyon",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "island",
    "jetty",
    "kettle",
    "lagoon",
    "meadow",
    "nebula",
    "orchard",
    "pebble",
    "quarry",
    "river",
    "summit",
    "tide",
]


class RunDirectory:
    """`runs/<experiment>/<name>/` with the paths inside it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()

    @classmethod
    def of_run(cls, root: Path | str, experiment: str, name: str | None, identity: Any) -> RunDirectory:
        """The directory `<root>/<experiment>/<name>`, which need not exist; `name` and `identity` as in run_name."""
        return cls(Path(root) / experiment / run_name(name, identity))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / LAST

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def power_ema(self) -> Path:
        return self.weights / "power_ema"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def inside(self, relative: Path | str) -> Path:
        """The path `relative` inside the run directory. Raises UserError if it leads out of it."""
        path = (self.path / relative).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise UserError(f"{relative} lies outside the run directory {self.path}; give a path below it")
        return path

    def write_records(self, config: dict[str, Any], overrides: list[str]) -> None:
        """Writes config.yaml, overrides.txt, git.txt and environment.txt of this start.

        They describe the newest start; if an earlier start differed, its file is kept as config.1.yaml and so on.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_keeping_older(self.config, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        write_keeping_older(self.path / "overrides.txt", "".join(f"{_masked(line)}\n" for line in overrides))
        write_keeping_older(self.path / "git.txt", describe_git(Path.cwd()))
        write_keeping_older(self.path / "environment.txt", describe_environment())

    def read_config(self) -> dict[str, Any]:
        """The plain contents of config.yaml. Raises UserError if there is no such file, or it is invalid."""
        return read_config(self.config)

    def checkpoint_to_resume(self, resume: str) -> Path | None:
        """The checkpoint from which training resumes.

        auto: checkpoints/last.ckpt (or the newest other one, if the run was killed before last.ckpt was made), or None
        if there is none. must: the same, or an error.
        never: None, and an error if the directory already holds a run. Anything else is the path of a checkpoint.
        """
        newest = newest_checkpoint(self.checkpoints)
        if resume == "auto":
            return newest
        if resume == "never":
            if newest is not None:
                raise UserError(f"resume=never, but {newest} exists; give another name=... or resume=auto")
            return None
        path = (newest or self.last_checkpoint) if resume == "must" else Path(resume).expanduser()
        if not path.is_file():
            what = "is no file" if path.exists() else "does not exist"
            raise UserError(f"resume={resume}: {path} {what}; use resume=auto or the path of a checkpoint")
        return path

    def owns(self, checkpoint: Path) -> bool:
        """Whether a checkpoint lies in this directory."""
        return checkpoint.resolve().parent == self.checkpoints.resolve()

    @contextlib.contextmanager
    def log_to_file(self) -> Iterator[None]:
        """Inside, everything that Python's logging reports (INFO and above) is also appended to log.txt."""
        self.path.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(self.log, mode="a", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.setLevel(logging.INFO)
        handler.addFilter(is_said_here)
        handler.addFilter(_is_of_the_run)
        # Lightning's loggers do not propagate to the root logger, unless that had a handler before their import.
        lightning = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
        loggers = [logging.getLogger(), *(logger for logger in lightning if not logger.propagate)]
        ours = logging.getLogger("difflab")
        level = ours.level
        ours.setLevel(min(level, logging.INFO) if level else logging.INFO)
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
            ours.setLevel(level)
            handler.close()


def _is_of_the_run(record: logging.LogRecord) -> bool:
    """A filter of handlers: False for what Lightning says of itself."""
    ours = not record.name.startswith("lightning.")
    return ours or not any(remark in record.getMessage() for remark in _OF_LIGHTNING_ALONE)


class _LogFile(logging.FileHandler):
    """A log file whose write errors end nothing and are reported once, not with a traceback for each line."""

    said = False

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        if not self.said:
            self.said = True
            say_on_stderr(f"difflab: {self.baseFilename} cannot be written ({sys.exc_info()[1]}); the run continues")

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def run_name(name: str | None, identity: Any) -> str:
    """The name of the run: `name` if given, else words derived from `identity`.

    identity: everything that distinguishes this run from others, as plain containers. The same configuration has the
    same name on every process, after a requeue and when the command is repeated, so it resumes the run it began.

    Raises UserError for a name that cannot be a folder name.
    """
    if name is None:
        return _words(json.dumps(identity, sort_keys=True))
    if not _ALLOWED_NAME.fullmatch(name):
        raise UserError(f"name={name!r} cannot name a folder; use letters, digits and . _ - + ,")
    return name


def describe_git(folder: Path) -> str:
    """Commit, branch and uncommitted changes of the checkout that `folder` is in, or a line saying there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return "not a git checkout\n"
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "unknown"
    changes = _git(folder, "status", "--porcelain") or ""
    stat = _git(folder, "diff", "--stat", "HEAD") or ""
    state = "clean" if not changes else f"uncommitted changes:\n{changes}\n{stat}"
    return f"commit: {commit}\nbranch: {branch}\n{state.rstrip()}\n"


def describe_environment() -> str:
    """Python, system, devices and installed packages. Environment variables are omitted: they may hold secrets."""
    import torch

    devices = [f"cpu: {cores()} cores"]
    devices += [f"cuda:{i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}, key=str.lower)
    return "\n".join(
        [f"python: {platform.python_version()}", f"system: {platform.platform()}", *devices, "", *packages, ""]
    )


def _masked(override: str) -> str:
    """An override without the values it puts into the environment of a job, which may be keys."""
    key, _, value = override.partition("=")
    return f"{key}=***" if value and "env_set" in key else override


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None


def _words(shared: str) -> str:
    digest = hashlib.blake2b(shared.encode(), digest_size=8).hexdigest()
    number = int(digest, 16)
    return f"{_ADJECTIVES[number % 20]}-{_NOUNS[number // 20 % 20]}-{digest[:4]}"
