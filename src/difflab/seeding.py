"""Named random streams: all randomness of a run is a function of its seed and of its purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def stream_seed(seed: int, *parts: int | str) -> int:
    """Returns a 63-bit seed for the stream `parts` of a run with `seed`; different parts give independent streams.

    It is a hash, so it does not depend on the machine, the Python version or the number of processes.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def sample_seeds(seed: int, indices: Iterable[int]) -> list[int]:
    """Returns the seed of each sample, by its index, of a drawing with `seed`."""
    return [stream_seed(seed, "sample", index) for index in indices]
