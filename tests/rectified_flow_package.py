"""The package of `examples/rectified_flow`: every part of a paper that difflab has not."""

from __future__ import annotations

from pathlib import Path

from plugin_packages import Packages

EXAMPLE = Path(__file__).parents[1] / "examples" / "rectified_flow"


def install_rectified_flow(packages: Packages) -> None:
    """Put its files where Python finds them, as pip does."""
    files = [path for path in (EXAMPLE / "rectified_flow").rglob("*") if path.suffix in (".py", ".yaml")]
    contents = {str(path.relative_to(EXAMPLE)): path.read_text(encoding="utf-8") for path in files}
    packages.install("difflab-rectified-flow", contents, version="0.1.0", module="rectified_flow")
