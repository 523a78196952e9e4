import dataclasses
import errno
import json
import math
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from difflab.errors import UserError
from difflab.metrics import reference as module
from difflab.metrics.extractors.loading import get_extractor
from difflab.metrics.gaussian import GaussianStatistics
from difflab.metrics.reference import DataReference, cache_path, shards_reference


@pytest.fixture
def random_extractor():
    return get_extractor("random")


def files(tmp_path):
    return sorted((tmp_path / "cache" / "reference").glob("*"))


def test_statistics_are_those_of_the_images(reference_of, noise_images, random_extractor):
    images = noise_images(50)
    made = reference_of(images).statistics(random_extractor)
    features = random_extractor(images).pool
    whole = GaussianStatistics.of(features)
    assert made.record.n == made.gaussian.n == 50
    torch.testing.assert_close(made.gaussian.mean, whole.mean)
    torch.testing.assert_close(made.gaussian.scatter, whole.scatter)
    torch.testing.assert_close(made.features, features)
    assert made.gaussian.mean.dtype == torch.float64


def test_padding_does_not_count(reference_of, noise_images, random_extractor):
    weights = torch.ones(50)
    weights[40:] = 0
    made = reference_of(noise_images(50), weights=weights, batch_size=7).statistics(random_extractor)
    assert made.record.n == 40
    torch.testing.assert_close(made.features, random_extractor(noise_images(50)[:40]).pool)


def test_a_set_without_readable_images_is_refused(reference_of, noise_images, random_extractor, tmp_path):
    with pytest.raises(UserError, match="noise split train holds no readable image"):
        reference_of(noise_images(4), weights=torch.zeros(4)).statistics(random_extractor)
    assert files(tmp_path) == []


def test_made_once_then_read(reference_of, noise_images, random_extractor, tmp_path):
    reference = reference_of(noise_images(20))
    first = reference.statistics(random_extractor)
    again = reference.statistics(random_extractor)
    elsewhere = reference_of(noise_images(20)).statistics(random_extractor)
    assert reference.opened == [None]
    assert len(files(tmp_path)) == 1
    for other in (again, elsewhere):
        assert other.record == first.record
        assert torch.equal(other.gaussian.mean, first.gaussian.mean)
        assert torch.equal(other.gaussian.scatter, first.gaussian.scatter)
        assert torch.equal(other.features, first.features)


def test_progress_is_shown_while_they_are_computed(reference_of, noise_images, random_extractor, capsys):
    reference_of(noise_images(20), batch_size=8).statistics(random_extractor)
    assert capsys.readouterr().err == "random features of 20 images of noise, batches of 8: 3 done\n"
    reference_of(noise_images(20), batch_size=8).statistics(random_extractor)
    assert capsys.readouterr().err == "", "they are in the cache"


def test_the_extractor_is_not_called_again(reference_of, noise_images, monkeypatch, random_extractor):
    calls = []
    forward = type(random_extractor)._features
    monkeypatch.setattr(
        type(random_extractor), "_features", lambda self, images: (calls.append(len(images)), forward(self, images))[1]
    )
    reference = reference_of(noise_images(20), batch_size=8)
    reference.statistics(random_extractor)
    assert calls == [8, 8, 4]
    reference.statistics(random_extractor)
    assert calls == [8, 8, 4]


def test_other_content_extractor_or_count_is_another_file(reference_of, noise_images, random_extractor, tmp_path):
    images = noise_images(20)
    reference_of(images).statistics(random_extractor)
    reference_of(images, content_hash="beef").statistics(random_extractor)
    reference_of(images).statistics(random_extractor, 10)
    monkey = type(random_extractor)(torch.device("cpu"), seed=1)
    reference_of(images).statistics(monkey)
    assert len(files(tmp_path)) == 4


def test_a_part_of_the_images(reference_of, noise_images, random_extractor):
    reference = reference_of(noise_images(20))
    assert reference.statistics(random_extractor, 5).record.n == 5
    assert reference.opened == [5]
    assert reference.statistics(random_extractor, 21).record == reference.statistics(random_extractor).record
    assert reference.opened == [5, None]


def test_the_order_of_the_batches_does_not_matter_to_the_features(noise_images, reference_of, random_extractor):
    images = noise_images(20)

    def backwards(limit):
        for rows in torch.arange(20).flip(0).split(6):
            yield {"image": images[rows], "index": rows, "weight": torch.ones(len(rows))}

    other = DataReference("noise", "backwards", "train", "none", 20, backwards, 6).statistics(random_extractor)
    torch.testing.assert_close(other.features, reference_of(images).statistics(random_extractor).features)


def test_images_given_twice_are_noticed(noise_images, random_extractor):
    def twice(limit):
        for _ in range(2):
            yield {"image": noise_images(4), "index": torch.arange(4), "weight": torch.ones(4)}

    with pytest.raises(ValueError, match="twice"):
        DataReference("noise", "twice", "train", "none", 4, twice, 4).statistics(random_extractor)


def test_of_large_sets_a_fixed_sample_of_features_is_kept(reference_of, noise_images, random_extractor, monkeypatch):
    monkeypatch.setattr(module, "KEPT_FEATURES", 50)
    images = noise_images(200, size=8)
    made = reference_of(images).statistics(random_extractor)
    other_batches = reference_of(images, content_hash="same images", batch_size=64).statistics(random_extractor)
    assert made.gaussian.n == 200
    assert 25 < len(made.features) < 75
    torch.testing.assert_close(other_batches.features, made.features)


def test_a_damaged_file_is_made_again(reference_of, noise_images, random_extractor, tmp_path, caplog):
    reference = reference_of(noise_images(20))
    first = reference.statistics(random_extractor)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    again = reference.statistics(random_extractor)
    assert torch.equal(again.features, first.features)
    assert "damaged" in caplog.text
    assert reference.opened == [None, None]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 200, b"\x08\0\0\0\0\0\0\0{}      ", None, "no record", "no mean", "not finite"],
    ids=["empty", "noise", "no tensors", "folder", "no record", "no mean", "not finite"],
)
def test_whatever_lies_in_the_cache_in_place_of_statistics_is_made_again(
    reference_of, noise_images, random_extractor, tmp_path, caplog, content
):
    reference = reference_of(noise_images(20))
    first = reference.statistics(random_extractor)
    (path,) = files(tmp_path)
    if content is None:
        path.unlink()
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with safe_open(path, framework="pt") as stored:
            metadata, tensors = stored.metadata(), {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if content == "no record":
            del metadata["record"]
        elif content == "no mean":
            del tensors["mean"]
        else:
            tensors["mean"][0] = math.nan
        save_file(tensors, path, metadata)
    again = reference.statistics(random_extractor)
    assert torch.equal(again.gaussian.mean, first.gaussian.mean)
    assert reference.opened == [None, None]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_only_costs_time(
    reference_of, noise_images, random_extractor, tmp_path, monkeypatch, capsys, error
):
    def fail(*args):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    reference = reference_of(noise_images(4))
    made = [reference.statistics(random_extractor) for _ in range(2)]
    assert torch.equal(made[0].gaussian.mean, made[1].gaussian.mean)
    assert reference.opened == [None, None]
    assert not [path for path in files(tmp_path) if path.suffix == ".safetensors"]
    said = capsys.readouterr().err
    assert said.count("cannot be kept in") == 1
    assert os.strerror(error) in said


def test_statistics_of_another_preparation_are_others(reference_of, noise_images, random_extractor):
    """A crop changes the images: what the cache has of one is not what the other one needs."""
    images = noise_images(20)
    plain, cropped = (
        reference_of(images),
        dataclasses.replace(reference_of(images[:, :, 4:12, 4:12]), preparation="crop"),
    )
    first, second = plain.statistics(random_extractor), cropped.statistics(random_extractor)
    assert not torch.equal(first.gaussian.mean, second.gaussian.mean)
    assert (first.record.preparation, second.record.preparation) == ("none", "crop")
    keys = [reference._key(random_extractor.record, None) for reference in (plain, cropped)]
    assert cache_path(keys[0]) != cache_path(keys[1])


@pytest.mark.parametrize("change", [{"content_hash": "beef"}, {"split": "val"}, {"preparation": "crop"}])
def test_everything_that_changes_the_images_is_in_the_key(reference_of, noise_images, random_extractor, change):
    reference = reference_of(noise_images(4))
    other = dataclasses.replace(reference, **change)
    keys = [one._key(random_extractor.record, None) for one in (reference, other)]
    assert cache_path(keys[0]) != cache_path(keys[1])
    extractor = random_extractor.record.model_copy(update={"weights_sha256": "0" * 64})
    assert cache_path(reference._key(extractor, None)) != cache_path(keys[0])
    assert cache_path(reference._key(random_extractor.record, 3)) != cache_path(keys[0])


def test_the_path_says_what_it_holds(tmp_path):
    key = {"extractor": {"name": "lite0"}, "split": "train", "n": 2000}
    path = cache_path(key)
    assert path.parent == tmp_path / "cache" / "reference"
    assert path.name.startswith("lite0-train-2000-")
    assert json.dumps(key) not in path.name


class TestShards:
    @pytest.fixture
    def data(self, tmp_path):
        return self.make(tmp_path / "shapes", seed=0)

    @staticmethod
    def make(path, seed, n=30):
        from difflab.config.data import DataConfig
        from difflab.data.shapes import ShapesSource
        from difflab.data.writing import write_shards

        write_shards(ShapesSource(resolution=16, n=n, split="train", seed=seed), path, shard_size=20)
        return DataConfig(path=str(path), image_size=16, batch_size=4)

    def test_the_split_is_read_once_over_all_ranks(self, data, random_extractor):
        whole = shards_reference(data, "train", batch_size=8)
        shares = [shards_reference(data, "train", batch_size=8, rank=r, world_size=2) for r in range(2)]
        seen = [int(i) for s in shares for b in s.batches(None) for i in b["index"][b["weight"] > 0]]
        assert sorted(seen) == list(range(30))
        assert whole.total == whole.statistics(random_extractor).record.n == 30
        assert len({r.content_hash for r in (whole, *shares)}) == 1

    def test_equal_content_has_an_equal_hash_wherever_it_lies(self, data, tmp_path):
        same = self.make(tmp_path / "elsewhere" / "copy", seed=0)
        other = self.make(tmp_path / "other", seed=1)
        first, second, third = (shards_reference(d, "train", batch_size=8) for d in (data, same, other))
        assert first.content_hash == second.content_hash != third.content_hash

    def test_the_limit_reaches_the_loader(self, data, random_extractor):
        assert shards_reference(data, "train", batch_size=8).statistics(random_extractor, 7).record.n == 7

    def test_cuts_drawn_for_training_are_not_drawn_here(self, data):
        drawn, fixed = (
            shards_reference(data.model_copy(update={"crop": crop}), "train", batch_size=8)
            for crop in ("adm_random", "adm")
        )
        assert drawn.preparation == fixed.preparation
        assert drawn.preparation.startswith("crop=adm size=")

    def test_an_unknown_split_is_refused(self, data):
        with pytest.raises(UserError, match="no split 'val'"):
            shards_reference(data, "val", batch_size=8)
