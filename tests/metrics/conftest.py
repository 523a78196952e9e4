"""Images and references for the metric tests."""

import pytest
import torch

from difflab.metrics.reference import DataReference


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIFFLAB_OFFLINE", "1")


@pytest.fixture
def noise_images():
    """noise_images(n, seed, channels=3, size=16) -> uint8 [n, channels, size, size]."""

    def make(n, seed=0, channels=3, size=16):
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)

    return make


@pytest.fixture
def reference_of():
    """reference_of(images) -> a DataReference of them; `.opened` lists the limits its batches were asked with."""

    def make(images, batch_size=16, content_hash="feed", weights=None):
        opened = []

        def batches(limit):
            opened.append(limit)
            n = len(images) if limit is None else limit
            chosen = torch.arange(n) * len(images) // n
            for rows in chosen.split(batch_size):
                weight = torch.ones(len(rows)) if weights is None else weights[rows]
                yield {"image": images[rows], "index": rows, "weight": weight}

        reference = DataReference("noise", content_hash, "train", "none", len(images), batches, batch_size)
        object.__setattr__(reference, "opened", opened)
        return reference

    return make
