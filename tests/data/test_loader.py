import logging
import sys

import numpy as np
import pytest
import torch

from difflab.conditioning.config import Shrinks
from difflab.conditioning.degradation.config import LightBSRConfig
from difflab.conditioning.low_resolution import build_low_resolution
from difflab.config.data import DataConfig
from difflab.data.build import build_eval_loader, build_train_loader
from difflab.data.processes import cores
from difflab.data.transforms import crop_draws, fit_drawn
from difflab.errors import UserError


def config(path, **changes):
    fields = ["label", "caption", "json"]
    return DataConfig(path=str(path), **({"image_size": 8, "batch_size": 4, "classes": 2, "fields": fields} | changes))


def train(path, total=12, seed=0, rank=0, world_size=1, **changes):
    return build_train_loader(config(path, **changes), seed=seed, rank=rank, world_size=world_size, total_batches=total)


def same(first, second):
    return all(
        torch.equal(first[name], second[name]) if isinstance(first[name], torch.Tensor) else first[name] == second[name]
        for name in first.keys() | second.keys()
    )


def damage(tiny_data, numbers):
    """Overwrite training images with text."""
    from difflab.data.opening import open_data

    directory = open_data(tiny_data)
    for number in numbers:
        shard = directory.split("train").shards[number // 10]
        with directory.shard_path(shard).open("r+b") as file:
            file.seek(int(directory.offsets(shard)["png"][number % 10][0]))
            file.write(b"this is text, not a picture")


def test_a_batch_is_complete(tiny_data, tiny_source):
    batch = next(iter(train(tiny_data)))
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["image"].dtype == torch.uint8
    assert batch["position"].tolist() == [0, 1, 2, 3]
    assert batch["weight"].tolist() == [1.0] * 4
    for place, index in enumerate(batch["index"].tolist()):
        expected = tiny_source(23).sample(index)
        np.testing.assert_array_equal(batch["image"][place].permute(1, 2, 0).numpy(), expected["image"])
        assert batch["label"][place] == expected["label"]
        assert batch["caption"][place] == expected["caption"]
        assert batch["json"][place] == expected["json"]
        assert batch["key"][place] == f"{index:08d}"


def test_an_iteration_runs_through_epochs_up_to_its_length(tiny_data):
    loader = train(tiny_data, total=12)
    epochs, seen = [], []
    for batch in loader:
        epochs.append(loader.epoch)
        seen.append(batch["index"].tolist())
    assert len(loader) == len(seen) == 12
    assert epochs == [0] * 5 + [1] * 5 + [2] * 2
    assert len({i for batch in seen[:5] for i in batch}) == 20
    assert loader.dropped_per_epoch == 3
    assert len(list(loader)) == 12, "the next iteration is as long"
    assert loader.state_dict()["batches"] == 24


def test_a_loader_may_be_as_good_as_endless(tiny_data):
    loader = train(tiny_data, total=sys.maxsize)
    for batch, expected in zip(loader, train(tiny_data, total=8), strict=False):
        assert same(batch, expected)
    assert len(loader) == sys.maxsize
    assert loader.batches >= 8


def test_the_dropped_tail_is_logged(tiny_data, caplog):
    with caplog.at_level(logging.INFO):
        train(tiny_data)
    assert "3 of 23 samples do not fill a batch of 4" in caplog.text


def test_flips_mirror_the_image_and_nothing_else(tiny_data):
    flipped = 0
    for plain, mirrored in zip(train(tiny_data), train(tiny_data, flip=True), strict=True):
        assert plain["index"].tolist() == mirrored["index"].tolist()
        for a, b in zip(plain["image"], mirrored["image"], strict=True):
            assert torch.equal(b, a) or torch.equal(b, a.flip(-1))
            flipped += not torch.equal(a, b)
    assert 12 < flipped < 36


def test_a_drawn_cut_is_of_the_image_of_its_epoch(tiny_data, tiny_source):
    cut: dict[int, list[torch.Tensor]] = {}
    for number, batch in enumerate(train(tiny_data, crop="adm_random")):
        for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            draws = crop_draws(0, number // 5, np.array([index]))[0].tolist()
            pixels = torch.from_numpy(tiny_source(23).sample(index)["image"]).permute(2, 0, 1)
            assert torch.equal(image, fit_drawn(pixels, 8, "adm", draws))
            cut.setdefault(index, []).append(image)
    again = [images for images in cut.values() if len(images) > 1]
    assert sum(not torch.equal(images[0], images[1]) for images in again) > len(again) / 2


def test_a_cut_and_a_flip_go_together(tiny_data):
    mirrored = 0
    for cut, both in zip(
        train(tiny_data, crop="adm_random"), train(tiny_data, crop="adm_random", flip=True), strict=True
    ):
        for a, b in zip(cut["image"], both["image"], strict=True):
            assert torch.equal(b, a) or torch.equal(b, a.flip(-1))
            mirrored += not torch.equal(a, b)
    assert 12 < mirrored < 36


def test_an_evaluation_draws_no_cut(tiny_data):
    def images(crop, size):
        loader = build_eval_loader(config(tiny_data, crop=crop, image_size=size), split="train", batch_size=4)
        return torch.cat([batch["image"] for batch in loader])

    assert torch.equal(images("adm_random", 6), images("adm", 6))
    assert torch.equal(images("adm_random", 8), images("none", 8))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batches_are_the_same_for_any_ranks_and_workers(tiny_data, workers, world_size):
    changes = {"total": 7, "flip": True, "crop": "adm_random"}
    expected = list(train(tiny_data, **changes))
    ranks = [
        train(tiny_data, rank=rank, world_size=world_size, workers=workers if rank < 2 else 0, **changes)
        for rank in range(world_size)
    ]
    for whole, *shares in zip(expected, *ranks, strict=True):
        joined = {
            name: torch.cat([share[name] for share in shares])
            if isinstance(value, torch.Tensor)
            else [entry for share in shares for entry in share[name]]
            for name, value in whole.items()
        }
        assert same(whole, joined)


@pytest.mark.parametrize(("workers", "stops"), [(0, range(1, 12)), (2, (1, 5, 11))])
def test_training_stopped_after_any_batch_goes_on_with_the_next(tiny_data, workers, stops):
    changes = {"flip": True, "crop": "adm_random", "workers": workers}
    expected = list(train(tiny_data, flip=True, crop="adm_random"))
    for stop in stops:
        first = train(tiny_data, **changes)
        running = iter(first)
        for _ in range(stop):
            next(running)
        state = first.state_dict()
        assert state["batches"] == stop
        again = train(tiny_data, **changes)
        again.load_state_dict(state)
        rest = list(again)
        assert len(rest) == 12 - stop
        assert all(same(a, b) for a, b in zip(rest, expected[stop:], strict=True))


DEGRADED = build_low_resolution(Shrinks(2, "area", LightBSRConfig(kind="bsr_light")))


def made(path, total=12, rank=0, world_size=1, **changes):
    fields = {"low_res": DEGRADED}
    loader = build_train_loader(
        config(path, **changes), seed=0, rank=rank, world_size=world_size, total_batches=total, made=fields
    )
    return list(loader)


def test_a_field_made_of_images_at_random_depends_on_epoch_and_image_alone(tiny_data):
    whole = made(tiny_data, flip=True)
    assert all(batch["low_res"].shape == (4, 3, 2, 2) for batch in whole)
    for changes in ({"workers": 2}, {"workers": 1, "prefetch": 1}):
        assert all(same(a, b) for a, b in zip(made(tiny_data, flip=True, **changes), whole, strict=True))
    shares = [made(tiny_data, flip=True, rank=rank, world_size=2) for rank in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch["low_res"], torch.cat([first["low_res"], second["low_res"]]))
    plain = list(train(tiny_data, flip=True))
    for batch, without in zip(whole, plain, strict=True):
        assert torch.equal(batch["image"], without["image"]), "it changes nothing else"
    # 5 batches an epoch: the same images come again in the next, degraded anew.
    first = {int(i): low for batch in whole[:5] for i, low in zip(batch["index"], batch["low_res"], strict=True)}
    again = {int(i): low for batch in whole[5:10] for i, low in zip(batch["index"], batch["low_res"], strict=True)}
    both = first.keys() & again.keys()
    assert len(both) > 10
    assert sum(torch.equal(first[i], again[i]) for i in both) < len(both) / 2


def test_a_field_is_made_of_the_image_as_it_is_mirrored(tiny_data):
    seen = []

    def record(images, seeds):
        seen.append((images.clone(), list(seeds)))
        return images[:, :1]

    loader = build_train_loader(config(tiny_data, flip=True), seed=0, total_batches=3, made={"grey": record})
    for batch, (images, seeds) in zip(loader, seen, strict=False):
        assert torch.equal(batch["image"], images)
        assert torch.equal(batch["grey"], images[:, :1])
        assert len(set(seeds)) == 4
        assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_loader_that_is_iterated_again_goes_on(tiny_data):
    expected = list(train(tiny_data))
    loader = train(tiny_data, workers=2)
    running = iter(loader)
    next(running)
    assert all(same(a, b) for a, b in zip(list(loader), expected[1:], strict=True))


def test_training_goes_on_with_another_number_of_ranks(tiny_data):
    loader = train(tiny_data, rank=1, world_size=2)
    next(iter(loader))
    resumed = train(tiny_data)
    resumed.load_state_dict(loader.state_dict())
    assert same(next(iter(resumed)), list(train(tiny_data))[1])


def test_the_state_of_other_data_is_refused(tiny_data):
    state = train(tiny_data).state_dict()
    with pytest.raises(UserError, match=r"its data had global_batch=4, now it is 2"):
        train(tiny_data, batch_size=2).load_state_dict(state)
    with pytest.raises(UserError, match=r"its data had seed=0, now it is 1"):
        train(tiny_data, seed=1).load_state_dict(state)


def test_iterating_leaves_the_global_random_state_alone(tiny_data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(train(tiny_data))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_evaluation_counts_every_sample_once(tiny_data, world_size):
    counted = torch.zeros(23)
    for rank in range(world_size):
        loader = build_eval_loader(
            config(tiny_data, flip=True), split="train", batch_size=4, rank=rank, world_size=world_size
        )
        assert len(loader) == 6
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == 6
        for batch in batches:
            counted.index_add_(0, batch["index"], batch["weight"])
    assert counted.tolist() == [1.0] * 23


def test_an_evaluation_of_some_samples_spreads_them(tiny_data):
    loader = build_eval_loader(config(tiny_data), split="train", batch_size=4, limit=5)
    indices = [i for batch in loader for i, w in zip(batch["index"].tolist(), batch["weight"], strict=True) if w]
    assert indices == [0, 4, 9, 13, 18]


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_samples_are_replaced_by_always_the_same_others(tiny_data, caplog, workers):
    expected = list(train(tiny_data, total=5))
    damage(tiny_data, [2])
    runs = [list(train(tiny_data, total=5, max_bad_fraction=0.1, workers=workers)) for _ in range(2)]
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    different = [
        (old, new)
        for a, b in zip(expected, runs[0], strict=True)
        for old, new in zip(a["index"].tolist(), b["index"].tolist(), strict=True)
        if old != new
    ]
    assert [old for old, _ in different] == [2]
    assert all(batch["weight"].sum() == 4 for batch in runs[0])
    assert "bad sample train-000000.tar/00000002: the .png is damaged: not an image" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_samples_stop_the_run_with_the_list(tiny_data, workers):
    damage(tiny_data, [2, 5])
    with pytest.raises(
        UserError, match=r"2 bad of 23 samples, 1 allowed: .*(00000002|00000005).*max_bad_frac"
    ) as caught:
        list(train(tiny_data, total=10, max_bad_fraction=0.05, workers=workers))
    assert "\n" not in str(caught.value)


def test_a_bad_sample_of_an_evaluation_counts_nothing(tiny_data):
    damage(tiny_data, [2])
    counted = torch.zeros(23)
    for batch in build_eval_loader(config(tiny_data, max_bad_fraction=0.1), split="train", batch_size=4):
        counted.index_add_(0, batch["index"], batch["weight"])
    assert counted.tolist() == [float(i != 2) for i in range(23)]


def test_data_without_one_good_sample_is_refused(tiny_data):
    damage(tiny_data, range(23))
    with pytest.raises(UserError, match="no readable sample found in place of"):
        list(train(tiny_data, max_bad_fraction=1.0))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_table_missing_in_a_reading_process_is_one_line_here(tiny_data, workers):
    loader = train(tiny_data, workers=workers)
    (tiny_data / "train-000000.offsets.npy").unlink()
    with pytest.raises(UserError, match=r"train-000000.offsets.npy is missing or damaged") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_the_machine_refuses_a_reading_process_keeps_its_path(tiny_data, workers):
    loader = train(tiny_data, workers=workers)
    (tiny_data / "train-000001.tar").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        list(loader)
    assert caught.value.filename == str(tiny_data / "train-000001.tar")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_more_workers_than_cores_are_no_warning(tiny_data, recwarn):
    loader = train(tiny_data, total=1, workers=cores() + 1)
    assert len(list(loader)) == 1
    assert not [warning for warning in recwarn if "worker" in str(warning.message)]
