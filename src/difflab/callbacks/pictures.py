"""The base of callbacks that leave a picture in the run's folder of samples."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL import Image
from typing_extensions import override

from difflab.callbacks.periodic import Periodic
from difflab.files import numbered
from difflab.tracking.grid import save_picture

log = logging.getLogger(__name__)


class Pictures(Periodic):
    """Leaves `<dirpath>/step-000100.png` every so many steps, once `act` calls `save`."""

    def __init__(self, dirpath: Path | str, every_steps: int, *, at_end: bool) -> None:
        super().__init__(every_steps, at_end=at_end)
        self.dirpath = Path(dirpath)

    def save(self, picture: Image.Image, step: int) -> None:
        """Writes the picture of a step. Called last, because the file marks the step as done."""
        save_picture(picture, self._path(step))

    @override
    def finished(self, step: int) -> bool:
        return self._path(step).is_file()

    @override
    def forget_after(self, step: int) -> None:
        # On resuming, later pictures come out the same; a run that begins anew may be a different one.
        if step > 0:
            return
        earlier = [path for _, path in numbered(self.dirpath, "step-", ".png")]
        for path in earlier:
            path.unlink(missing_ok=True)
        if earlier:
            log.info("removed %d pictures of an earlier start: the run begins anew", len(earlier))

    def _path(self, step: int) -> Path:
        return self.dirpath / f"step-{step:06d}.png"
