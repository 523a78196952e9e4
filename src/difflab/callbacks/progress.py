"""Progress of training: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from difflab.callbacks.clock import find_callback, train_images, train_step
from difflab.callbacks.config import ProgressConfig
from difflab.progress import on_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from difflab.callbacks.context import CallbackContext

BAR_EVERY_S = 0.5


class Progress(Callback):
    """Shows the step, loss, images per second and the time left, on the first process.

    A bar (twice a second) if `stream` is a terminal, else a line every `line_every_s` seconds and at the end.
    Only then is the loss read from the device. Inside `showing` what is done instead of training is shown, and its
    time is excluded from the speed.
    """

    def __init__(
        self,
        max_steps: int,
        line_every_s: float = 10.0,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_steps, self.line_every_s = max_steps, line_every_s
        self.stream, self._now = stream, now
        self._bar: RichProgress | None = None
        self._open = contextlib.ExitStack()
        self._shown = now()

    @classmethod
    def from_config(cls, config: ProgressConfig, context: CallbackContext) -> Progress:
        return cls(context.config.trainer.max_steps, config.line_every_s)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._shown = self._now()
        self._shown_step, self._shown_images = train_step(pl_module), train_images(pl_module)
        self._line_step: int | None = None
        if trainer.is_global_zero and self._out().isatty():
            self._bar = _bar_on(self._out())
            self._task = self._bar.add_task("train", total=self.max_steps, completed=self._shown_step)
            self._open.enter_context(on_terminal(self._bar))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = self.line_every_s if self._bar is None else BAR_EVERY_S
        if trainer.is_global_zero and self._now() - self._shown >= every:
            self._show(pl_module, outputs)
        self._outputs = outputs

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and train_step(pl_module) != self._line_step:
            self._show(pl_module, getattr(self, "_outputs", None))
        self._close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    @contextlib.contextmanager
    def doing(self, trainer: pl.Trainer, pl_module: pl.LightningModule, what: str) -> Iterator[None]:
        """Shows `what` at the current step."""
        begin = self._now()
        if trainer.is_global_zero:
            if self._bar is not None:
                self._bar.update(self._task, completed=train_step(pl_module), text=what)
            else:
                self._write(f"step {train_step(pl_module)}/{self.max_steps} | {what}")
        try:
            yield
        finally:
            self._shown += self._now() - begin

    def _show(self, pl_module: pl.LightningModule, outputs: Any) -> None:
        now, step, images = self._now(), train_step(pl_module), train_images(pl_module)
        seconds = max(now - self._shown, 1e-9)
        text = f"loss {_loss(outputs)} | {(images - self._shown_images) / seconds:.1f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        else:
            rate = (step - self._shown_step) / seconds
            left = _duration((self.max_steps - step) / rate) if rate > 0 else "?"
            self._write(f"step {step}/{self.max_steps} | {text} | {left} left")
        self._shown, self._shown_step, self._shown_images, self._line_step = now, step, images, step

    def _out(self) -> TextIO:
        return self.stream or sys.stderr

    def _write(self, line: str) -> None:
        self._out().write(f"{line}\n")
        self._out().flush()

    def _close(self) -> None:
        self._open.close()
        self._bar = None


def showing(trainer: pl.Trainer, pl_module: pl.LightningModule, what: str) -> contextlib.AbstractContextManager[None]:
    """A context during which the trainer's Progress callback shows `what`."""
    progress = find_callback(trainer, Progress)
    return contextlib.nullcontext() if progress is None else progress.doing(trainer, pl_module, what)


def _bar_on(stream: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Remark(ProgressColumn):
        """What is said of the training; other rows have nothing there."""

        @override
        def render(self, task: Task) -> Text:
            return Text(task.fields.get("text", ""))

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remark(), TimeRemainingColumn()]
    return RichProgress(*columns, console=Console(file=stream), refresh_per_second=4)


def _loss(outputs: Any) -> str:
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return "-" if loss is None else f"{float(loss):.4g}"


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
