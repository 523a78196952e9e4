"""Encodes the samples of a source as files of a shard, in this process or in several, in order."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from difflab.data.bad_files import BadFile
from difflab.data.decode import image_channels
from difflab.data.encode import ImageFormat, encode_sample
from difflab.data.processes import cores, end_with_parent, process_context, unaware_of_interrupts
from difflab.data.sources.base import Source
from difflab.errors import LostProcessError

_CHUNK = 16
_CHUNKS_AHEAD = 3
"""Chunks per process that are made ahead: enough to keep it busy, few enough for the memory."""
_SECONDS_ALONE = 1.0
_SECONDS_WORTH_STARTING = 8.0
"""Importing torch in other processes takes three to four seconds."""


@dataclass(frozen=True)
class Encoded:
    """One sample: its files by extension, (height, width), channels (1 for grey, 3 for colour), label and notes; or,
    instead, why it cannot be used."""

    files: dict[str, bytes]
    size: tuple[int, int]
    channels: int = 3
    label: int | None = None
    notes: dict[str, str] = field(default_factory=dict)
    bad: str | None = None


def encoded_samples(
    source: Source, start: int, image_format: ImageFormat, workers: int | None
) -> Generator[Encoded, None, None]:
    """Encodes the samples of a source from number `start` on.

    workers: processes that encode them (0: this one; None: one per core, unless so little remains after a second that
    they would start too late); they end with this one, however it ends.

    Raises LostProcessError if one of them is ended from outside, for example for lack of memory.
    """
    processes = cores() if workers is None else workers
    if processes == 0 or (workers is None and processes == 1):
        yield from (_encode_one(source, i, image_format) for i in range(start, len(source)))
        return
    if workers is None:
        began, first = time.monotonic(), start
        while start < len(source) and not _is_worth_processes(
            time.monotonic() - began, start - first, len(source) - start
        ):
            yield _encode_one(source, start, image_format)
            start += 1
    if start < len(source):
        yield from _encoded_by(processes, source, start, image_format)


def _is_worth_processes(seconds: float, done: int, remaining: int) -> bool:
    """Whether the remaining work, at the pace so far, takes much longer than starting processes."""
    return seconds > _SECONDS_ALONE and remaining * seconds > _SECONDS_WORTH_STARTING * done


def _encoded_by(
    processes: int, source: Source, start: int, image_format: ImageFormat
) -> Generator[Encoded, None, None]:
    context = process_context(_modules_for(source))
    unaware_of_interrupts(context)
    pool = ProcessPoolExecutor(processes, context, initializer=_set_source, initargs=(source, image_format))
    try:
        yield from _in_order(pool, range(start, len(source), _CHUNK), len(source), processes * _CHUNKS_AHEAD)
    except BrokenProcessPool:
        raise LostProcessError(
            "a process that makes samples was ended from outside, as for want of memory; give a smaller workers=..."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _modules_for(source: Source) -> list[str]:
    """The modules that the fork server imports once for all processes: a source without torch does not wait for it."""
    heavy = [name for name in ("torch", "torchvision.io", "PIL.PngImagePlugin") if name in sys.modules]
    return [*heavy, type(source).__module__, __name__]


def _in_order(pool: ProcessPoolExecutor, starts: range, stop: int, ahead: int) -> Iterator[Encoded]:
    remaining = iter(starts)
    waiting: deque[Future[list[Encoded]]] = deque()
    while True:
        for start in itertools.islice(remaining, ahead - len(waiting)):
            waiting.append(pool.submit(_encode_in_worker, range(start, min(start + starts.step, stop))))
        if not waiting:
            return
        yield from waiting.popleft().result()


def _encode_one(source: Source, index: int, image_format: ImageFormat) -> Encoded:
    try:
        sample = source.sample(index)
    except BadFile as error:
        return Encoded({}, (0, 0), bad=str(error))
    height, width = sample["size"] if "file" in sample else sample["image"].shape[:2]
    files = encode_sample(sample, image_format)
    return Encoded(files, (height, width), _channels(sample, files), sample.get("label"), sample.get("notes", {}))


def _channels(sample: dict[str, Any], files: dict[str, bytes]) -> int:
    if "image" in sample:
        return 1 if sample["image"].ndim == 2 else 3
    extension, _ = sample["file"]
    return image_channels(files[extension])


_worker_source: tuple[Source, ImageFormat] | None = None
"""Set once in each worker: a source may list a million files, too much to send with every task."""


def _set_source(source: Source, image_format: ImageFormat) -> None:
    global _worker_source
    _worker_source = (source, image_format)
    if (torch := sys.modules.get("torch")) is not None:
        # A process for each core: threads of their own would wait for one another.
        torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal: the first one decides, the others end when it says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _encode_in_worker(indices: range) -> list[Encoded]:
    assert _worker_source is not None, "the pool's initialiser sets the source"
    source, image_format = _worker_source
    return [_encode_one(source, index, image_format) for index in indices]
