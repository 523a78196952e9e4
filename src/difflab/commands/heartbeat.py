"""Heartbeats of the ranks, to report which rank the others are waiting for."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import threading
import time
from collections.abc import Iterator

import torch.distributed as dist

from difflab.commands.launching import Ranks
from difflab.config.ranks import RanksConfig
from difflab.errors import LostProcessError, UserError
from difflab.signals import announce, first_is_gone, follows_another, received, speaks

_BEAT_S = 1.0
_START_S = 60.0
"""How much later than this process another one may start, in seconds."""
_ENDED = "ended"
_ANSWER = datetime.timedelta(seconds=5)


@contextlib.contextmanager
def beating(rank: int, world_size: int, config: RanksConfig, ranks: Ranks) -> Iterator[None]:
    """Inside the context, every rank sends heartbeats through the store of the process group.

    Rank 0 monitors all ranks, rank 1 monitors rank 0, each on its own thread. An error inside becomes LostProcessError
    if another rank has stopped responding.
    """
    if world_size == 1:
        yield
        return
    heart = _Heart(rank, world_size, config, ranks)
    heart.start()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lost = None if ranks.pids or follows_another() or received() else heart.silent()
        if not lost:
            raise
        message = f"{_names(lost)} ended or cannot be reached; the others are ended too"
        if not speaks() and rank == min(set(range(world_size)) - set(lost)):
            announce(message, anyway=True)
        raise LostProcessError(message) from error
    finally:
        heart.stop()


class _Heart:
    def __init__(self, rank: int, world_size: int, config: RanksConfig, ranks: Ranks) -> None:
        self.rank, self.world_size, self.config, self.ranks = rank, world_size, config, ranks
        self.over = threading.Event()
        self._listens_to = range(1, world_size) if rank == 0 else range(0 if rank == 1 else 1, 1)
        limits = [limit for limit in (config.warning_s, config.timeout_s) if limit is not None]
        self._beat_s = min([_BEAT_S, *(limit / 4 for limit in limits)])
        self._heard = dict.fromkeys(self._listens_to, time.monotonic() + _START_S)
        self._last: dict[int, bytes] = {}
        self._named: set[int] = set()

        self._talking = threading.Thread(target=self._talk, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._talking.start()
        threading.Thread(target=self._judge, name="listening to ranks", daemon=True).start()

    def stop(self) -> None:
        self.over.set()
        # Not joined: the thread may be waiting for a rank that is gone.
        self._talking.join(timeout=self._beat_s)

    def silent(self) -> list[int]:
        """The ranks without a heartbeat within a few seconds."""
        try:
            store = _store()
            before = {rank: _sign(store, rank) for rank in range(self.world_size)}
            time.sleep(3 * self._beat_s)
            return [r for r, sign in before.items() if r != self.rank and _sign(store, r) == sign]
        except RuntimeError:
            # The first rank hosts the store.
            return [0] if self.rank else []

    def _talk(self) -> None:
        while not dist.is_initialized():
            if self.over.wait(self._beat_s):
                return
        # All ranks have met, so all have started.
        self._heard = dict.fromkeys(self._listens_to, time.monotonic())
        # If the store is gone, its rank has ended: judge by its last heartbeat.
        with contextlib.suppress(RuntimeError):
            store, number = _store(), 0
            while not self.over.wait(self._beat_s):
                number += 1
                store.set(_key(self.rank), str(number))
                for rank in self._listens_to:
                    sign = _sign(store, rank)
                    if sign is not None and sign != self._last.get(rank):
                        self._last[rank] = sign
                        self._heard[rank] = time.monotonic()
                        self._named.discard(rank)
            store.set(_key(self.rank), _ENDED)

    def _judge(self) -> None:
        last = time.monotonic()
        while not self.over.wait(self._beat_s):
            now = time.monotonic()
            if now - last > 10 * self._beat_s:
                # This process itself was suspended, so missing heartbeats mean nothing.
                self._heard = dict.fromkeys(self._heard, now)
            last = now
            for rank, heard in self._heard.items():
                if self._last.get(rank) != _ENDED.encode():
                    self._judge_one(rank, now - heard)

    def _judge_one(self, rank: int, silence: float) -> None:
        warning, timeout = self.config.warning_s, self.config.timeout_s
        if timeout is not None and silence > timeout:
            self._end(rank, f"rank {rank} has not responded for {timeout:g} s; all ranks are ended")
        elif silence > warning and rank not in self._named:
            self._named.add(rank)
            announce(f"waiting for rank {rank}, which has not responded for {warning:g} s", anyway=True)

    def _end(self, rank: int, verdict: str) -> None:
        self.over.set()
        if self.ranks.end_silent(rank, verdict):
            # The resulting error of the collective is explained where the ranks were started.
            return
        announce(verdict, anyway=True)
        if rank == 0 and follows_another() and not first_is_gone():
            os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)


def _store() -> dist.TCPStore:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False, timeout=_ANSWER, wait_for_workers=False)


def _key(rank: int) -> str:
    return f"difflab/sign/{rank}"


def _sign(store: dist.TCPStore, rank: int) -> bytes | None:
    return store.get(_key(rank)) if store.check([_key(rank)]) else None


def _names(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
