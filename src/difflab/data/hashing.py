"""Vectorised hashing of dataset indices, the same bits with every version of numpy and on every machine."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def hash_indices(indices: np.ndarray, seed: int) -> np.ndarray:
    """uint64 hash of each index under `seed`: outputs of SplitMix64 (Steele et al. 2014), its start hashed too."""
    with np.errstate(over="ignore"):
        start = _finalise(np.asarray([seed], dtype=np.uint64))
        return _finalise(start + (indices.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def permutation(n: int, seed: int) -> np.ndarray:
    """int64 permutation of range(n), uniform over seeds: the order of the hashes."""
    return np.argsort(hash_indices(np.arange(n), seed), kind="stable")


def _finalise(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
