"""Samples made here, by other processes, or first here and then by others: the same ones, in order."""

import numpy as np
import pytest

from difflab.data import encoding
from difflab.data.encoding import encoded_samples
from difflab.data.shapes import ShapesSource


@pytest.fixture
def source():
    return ShapesSource(resolution=16, n=60, seed=1)


def made(source, start=0, workers=0):
    return [sample.files for sample in encoded_samples(source, start, "png", workers)]


@pytest.mark.parametrize("alone", [0, 7, 59])
def test_what_was_begun_here_is_finished_by_others(source, monkeypatch, alone):
    monkeypatch.setattr(encoding, "cores", lambda: 2)
    monkeypatch.setattr(encoding, "_is_worth_processes", lambda _seconds, done, _remaining: done >= alone)
    assert made(source, workers=None) == made(source)
    assert made(source, 5, workers=None) == made(source, 5)


@pytest.mark.parametrize(("cores", "samples"), [(1, 10**9), (64, 60)])
def test_no_processes_are_started_where_they_would_come_too_late(source, monkeypatch, cores, samples):
    def refuse(*_):
        raise AssertionError("processes were started")

    monkeypatch.setattr(encoding, "cores", lambda: cores)
    monkeypatch.setattr(encoding, "_encoded_by", refuse)
    if samples > len(source):
        monkeypatch.setattr(encoding, "_is_worth_processes", lambda *_: True)
    assert made(source, workers=None) == made(source)


@pytest.mark.parametrize(
    ("seconds", "done", "remaining", "worth"),
    [(0.5, 100, 10**6, False), (1.5, 100, 10**6, True), (1.5, 100, 100, False), (30.0, 1, 1, True)],
)
def test_processes_are_worth_their_start_where_much_is_left(seconds, done, remaining, worth):
    assert encoding._is_worth_processes(seconds, done, remaining) is worth


@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 1), ((8, 8, 3), 3)])
def test_an_image_that_a_source_makes_is_grey_or_in_colour(shape, channels):
    class Squares:
        class_names = None

        def __len__(self):
            return 1

        def sample(self, index):
            return {"image": np.zeros(shape, np.uint8)}

    (encoded,) = encoded_samples(Squares(), 0, "png", 0)
    assert (encoded.channels, encoded.size) == (channels, (8, 8))
