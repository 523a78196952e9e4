"""All that a GPU has to tell, in eight minutes at most, the most important first; see development/gpu.md.

Each part runs in a process of its own with a share of the time. One that does not come to its end, for whatever reason,
leaves the lines that it had, and the next part begins. What a part does not use of its share goes to those after it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import command
from benchmarks.gpu_report import Report, share

ROOT = Path(__file__).parents[1]
BUDGET = 450.0
"""Seconds; starting the first process and ending the last one has to fit into eight minutes, too."""

LEAST = 8.0
"""Seconds below which a part is not begun: importing takes most of them."""

GRACE = 4.0
"""Seconds before its end at which a part should be through of its own accord."""

MISTAKE = 2
"""The status of what the user has to mend."""


@dataclass(frozen=True)
class Part:
    """Some figures, and how much of the time they may take beside the others."""

    weight: float
    about: str


PARTS = {
    "numerics": Part(65, "bf16, channels_last, torch.compile and TF32 against fp32; resuming bit for bit"),
    "adm64": Part(145, "training and drawing with ADM's network for 64 px, beside diffusers"),
    "cifar10": Part(115, "training and drawing with DDPM's network for CIFAR-10, beside diffusers"),
    "adm256": Part(45, "training and drawing with ADM's network for 256 px, with activation checkpointing"),
    "sd256": Part(75, "training Stable Diffusion 1.5's UNet from latents of 256 px, by hand, beside diffusers"),
    "sd512": Part(40, "the same from latents of 512 px"),
    "auto": Part(60, "what `auto` chooses against the best found"),
    "loader": Part(20, "reading shards into pinned memory and on to the device"),
}


def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    if args.part is not None:
        run_worker(args)
        return
    tell_of_missing_packages()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))
    # Compiling starts cold, whatever this machine has compiled before, and parts share what they compile.
    with tempfile.TemporaryDirectory(prefix="difflab-benchmark-gpu-") as cache:
        run_parts(args, environment(args, cache))


def run_parts(args: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """One part after the other, each until its share is over."""
    end = time.time() + args.budget_s
    chosen = list(args.only or PARTS)
    for number, name in enumerate(chosen):
        seconds = share(end - time.time(), [PARTS[other].weight for other in chosen[number:]])
        report = Report(name, time.time() + seconds, args.json)
        if seconds < LEAST:
            report.left_out("all", f"{max(seconds, 0.0):.0f} s are left for it")
            continue
        report.note("about", f"{PARTS[name].about}; at most {seconds:.0f} s")
        with worker(name, report.until, args, environ) as process:
            try:
                status = process.wait(timeout=max(report.left(), 0.0))
            except subprocess.TimeoutExpired:
                report.left_out("the rest", f"the {seconds:.0f} s of this part are over")
                continue
        if status == MISTAKE:
            # It is said, and the other parts would say the same.
            sys.exit(MISTAKE)
        if status:
            report.failed("the rest", RuntimeError(f"the process of this part ended with status {status}"))


@contextlib.contextmanager
def worker(
    name: str, until: float, args: argparse.Namespace, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of one part, which writes to our stdout; with all that it started it ends here."""
    arguments = ["--part", name, "--until", str(until)]
    arguments += [] if args.json is None else ["--json", str(args.json)]
    arguments += ["--scale", args.scale] + ([] if args.batch is None else ["--batch", str(args.batch)])
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def environment(args: argparse.Namespace, cache: str) -> dict[str, str]:
    """Of the parts' processes."""
    source = str(ROOT / "src")
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
        "TORCHINDUCTOR_CACHE_DIR": cache,
        # Asked for by deterministic algorithms before the first matrix product of a process.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONUNBUFFERED": "1",
    }
    if args.scale == "tiny":
        # torch.compile then gives back what it is given: a C++ compiler would take minutes.
        environ |= {"TORCH_COMPILE_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return environ


def tell_of_missing_packages() -> None:
    """One line of the dependencies that are not installed here: what needs them fails, the rest goes on."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["peers"]]
    names = [text.split(">")[0].split("=")[0].split("<")[0].strip() for text in wanted]
    if missing := [name for name in names if not _is_installed(name)]:
        command.print_lines(f"not installed here, see development/gpu.md: {' '.join(missing)}")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


# -- inside of a part's process


def run_worker(args: argparse.Namespace) -> None:
    """One part, here."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report = Report(args.part, args.until - GRACE, args.json)
    run_part = report.attempt("all", _imported)
    if run_part is not None:
        run_part(report, tiny=args.scale == "tiny", batch=args.batch)


def _imported() -> Callable[..., None]:
    """Packages that are missing end this part alone."""
    from benchmarks.gpu_parts import run_part

    return run_part


def _end_with_parent() -> None:
    """The other end of our stdin closes when the process that started us is gone, however it went."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    for signum, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
        # Also what outlived it: readers and compilers are in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
    assert process.stdin is not None
    process.stdin.close()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What a GPU has to tell of difflab.")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts alone, in this order")
    parser.add_argument(
        "--budget-s", type=command.seconds, default=BUDGET, help="seconds for all of them (default %(default)g)"
    )
    parser.add_argument("--json", type=Path, help="append every figure to this file, a line of JSON each")
    parser.add_argument(
        "--batch", type=command.at_least(1), help="images of a training step, instead of each part's own"
    )
    parser.add_argument(
        "--scale", choices=["full", "tiny"], default="full", help="tiny: every part on the CPU, in no time"
    )
    parser.add_argument("--tiny", "--dry-run", dest="scale", action="store_const", const="tiny", help="the same")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.json is not None:
        args.json = args.json.absolute()
        try:
            # Before the first figure: one that cannot be written down is lost.
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.open("a").close()
        except OSError as error:
            parser.error(f"argument --json: {args.json} cannot be written ({error.strerror}): give another file")
    return args


if __name__ == "__main__":
    sys.exit(command.run(main))
