from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.tiny import Tiny
from difflab.callbacks.progress import Progress, showing
from difflab.progress import track


class Stub:
    is_global_zero = True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(stream: io.StringIO, steps: int, done: int = 0) -> Tiny:
    """Trains up to `steps`, where `done` were done before."""
    time = [0.0]
    model, stub = Tiny(), Stub()
    model.train_step, model.train_images = done, 16 * done
    trainer: Any = stub
    progress = Progress(100, line_every_s=10.0, stream=stream, now=lambda: time[0])
    progress.on_train_start(trainer, model)
    for step in range(done + 1, steps + 1):
        time[0] += 4.0
        model.train_step, model.train_images = step, 16 * step
        progress.on_train_batch_end(trainer, model, {"loss": torch.tensor(1.0 / step)}, None, 0)
    progress.on_train_end(trainer, model)
    return model


def test_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    drive(stream, 7)
    assert stream.getvalue().splitlines() == [
        "step 3/100 | loss 0.3333 | 4.0 images/s | 6:28 left",
        "step 6/100 | loss 0.1667 | 4.0 images/s | 6:16 left",
        "step 7/100 | loss 0.1429 | 4.0 images/s | 6:12 left",
    ]


def test_what_was_done_before_is_no_speed_of_today() -> None:
    stream = io.StringIO()
    drive(stream, 53, done=50)
    assert stream.getvalue().splitlines() == ["step 53/100 | loss 0.01887 | 4.0 images/s | 3:08 left"]


def test_a_bar_in_a_terminal() -> None:
    stream = Terminal()
    drive(stream, 7)
    assert "7/100" in stream.getvalue()
    assert "loss 0.1429" in stream.getvalue()


def drive_with_a_grid(stream: io.StringIO) -> None:
    """Trains two steps of 10 s with a grid of 100 s between them, and makes another grid after the end."""
    time = [0.0]
    model = Tiny()
    model.train_step, model.train_images = 0, 0
    progress = Progress(2, line_every_s=10.0, stream=stream, now=lambda: time[0])
    trainer: Any = SimpleNamespace(is_global_zero=True, callbacks=[progress])
    progress.on_train_start(trainer, model)
    for step in (1, 2):
        time[0] += 10.0
        model.train_step, model.train_images = step, 16 * step
        progress.on_train_batch_end(trainer, model, None, None, 0)
        if step == 2:
            progress.on_train_end(trainer, model)
        with showing(trainer, model, "sampling"):
            time[0] += 100.0


def test_what_is_done_between_steps_is_shown_and_is_no_time_of_training() -> None:
    stream = io.StringIO()
    drive_with_a_grid(stream)
    assert stream.getvalue().splitlines() == [
        "step 1/2 | loss - | 1.6 images/s | 0:10 left",
        "step 1/2 | sampling",
        "step 2/2 | loss - | 1.6 images/s | 0:00 left",
        "step 2/2 | sampling",
    ]


def test_a_terminal_shows_it_too() -> None:
    stream = Terminal()
    drive_with_a_grid(stream)
    assert "step 2/2 | sampling" in stream.getvalue()


def test_work_inside_of_training_is_a_row_of_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, other = Terminal(), Terminal()
    monkeypatch.setattr("sys.stderr", other)
    progress = Progress(2, stream=stream)
    trainer: Any = SimpleNamespace(is_global_zero=True, callbacks=[progress])
    progress.on_train_start(trainer, Tiny())
    assert list(track(range(3), 3, "measuring latents")) == [0, 1, 2]
    assert "measuring latents" in stream.getvalue()
    assert not other.getvalue()
    progress.on_exception(trainer, Tiny(), RuntimeError())
    assert list(track(range(3), 3, "afterwards")) == [0, 1, 2]
    assert "afterwards" in other.getvalue()
    assert "afterwards" not in stream.getvalue()


def test_a_training_without_progress_shows_nothing() -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, callbacks=[])
    with showing(trainer, Tiny(), "sampling"):
        pass


def test_other_processes_are_silent() -> None:
    stream = io.StringIO()
    Stub.is_global_zero = False
    try:
        drive(stream, 7)
    finally:
        Stub.is_global_zero = True
    assert stream.getvalue() == ""
