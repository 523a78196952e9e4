"""The folder of the configuration groups: inside an installed wheel, or at the top of a checkout."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The absolute path of `conf/`.

    Raises FileNotFoundError if the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    candidates = [package / "conf", package.parents[1] / "conf"]
    for candidate in candidates:
        if (candidate / "train.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"difflab's conf/ was not found at {' or '.join(map(str, candidates))}; reinstall difflab")
