"""Small shards for the data tests."""

import io
import tarfile

import numpy as np
import pytest

from difflab.data.opening import open_data
from difflab.data.writing import write_shards


class TinySource:
    """`n` random images; label, caption and json tell which one it is."""

    def __init__(self, n, size=8, classes=("cat", "dog")):
        self.n = n
        self.size = size
        self.class_names = list(classes) if classes else None

    def __len__(self):
        return self.n

    def sample(self, index):
        rng = np.random.default_rng(index)
        return {
            "image": rng.integers(0, 256, (self.size, self.size, 3), dtype=np.uint8),
            "label": index % 2,
            "caption": f"picture {index}",
            "json": {"number": index},
        }


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny_source():
    return TinySource


@pytest.fixture
def tiny_data(tmp_path):
    """A made data set: 23 training images of 8x8 in shards of 10, 7 for validation."""
    write_shards(TinySource(23), tmp_path / "tiny", shard_size=10)
    write_shards(TinySource(7), tmp_path / "tiny", split="val")
    return tmp_path / "tiny"


@pytest.fixture
def open_tiny(tiny_data):
    return open_data(tiny_data)


@pytest.fixture
def encoded():
    """encoded(mode, fmt, size, **options) -> the bytes of an image file."""
    from PIL import Image

    def make(mode="RGB", fmt="PNG", size=(8, 8), **options):
        rng = np.random.default_rng(0)
        rgba = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
        image = Image.fromarray(rgba, "RGBA") if mode == "RGBA" else Image.fromarray(rgba[..., :3]).convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, fmt, **options)
        return buffer.getvalue()

    return make


@pytest.fixture
def write_tar():
    """write_tar(path, {member name: bytes}, ...) -> path, in the order given."""

    def write(path, members, fmt=tarfile.USTAR_FORMAT):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=fmt) as tar:
            for name, content in members.items() if isinstance(members, dict) else members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write
