"""Metrics that compare each sample with a picture of its own, through the evaluator."""

import math

import pytest
import torch

from difflab.errors import UserError
from difflab.images import Downsampling
from difflab.metrics.config import ConsistencyConfig, PSNRConfig, SSIMConfig
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.paired import Pairs
from difflab.metrics.similarity import consistency, highest_psnr, peak_signal_noise_ratio, structural_similarity

METRICS = {"psnr": PSNRConfig(), "ssim": SSIMConfig(), "consistency": ConsistencyConfig(), "fd": None}
DOWN = Downsampling(4, "bicubic")


def pictures(n=10, seed=0, size=16, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def pairs_of(originals, **options):
    shape = tuple(originals.shape[1:])
    return Pairs(lambda indices: {"original": originals[indices]}, **{"shape": shape, "downsampling": DOWN, **options})


def evaluate(images, pairs, order=None, batch_size=4, metrics=METRICS, low_res=None):
    evaluator = Evaluator(metrics, n=len(images), pairs=pairs)
    for rows in (torch.arange(len(images)) if order is None else order).split(batch_size):
        evaluator.update(images[rows], rows, low_res=None if low_res is None else low_res[rows])
    return {result.metric: result for result in evaluator.compute()}


def test_values_are_means_over_samples_and_spreads_standard_errors():
    images, originals = pictures(), pictures(seed=1)
    found = evaluate(images, pairs_of(originals))
    each = {
        "psnr": peak_signal_noise_ratio(images, originals),
        "ssim": structural_similarity(images, originals),
        "consistency": consistency(images, DOWN(originals), DOWN),
    }
    assert list(found) == list(each)
    for metric, values in each.items():
        assert found[metric].value == pytest.approx(values.mean().item(), rel=1e-12)
        assert found[metric].spread == pytest.approx(values.std().item() / math.sqrt(10), rel=1e-9)
        assert found[metric].key == f"eval/{metric}@10"


def test_order_and_batch_size_do_not_matter_and_padding_does_not_count():
    images, pairs = pictures(), pairs_of(pictures(seed=1))
    plain = evaluate(images, pairs)
    shuffled = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    other = evaluate(images, pairs, shuffled, batch_size=3)
    evaluator = Evaluator(METRICS, n=10, pairs=pairs)
    evaluator.update(images, torch.arange(10))
    evaluator.update(pictures(2, seed=5), torch.tensor([0, 1]), torch.zeros(2))
    padded = {result.metric: result for result in evaluator.compute()}
    for metric, result in plain.items():
        for again in (other[metric], padded[metric]):
            assert again.value == pytest.approx(result.value, rel=1e-12)
            assert again.protocol.hash == result.protocol.hash


def test_a_sample_that_is_not_there_is_noticed():
    images, pairs = pictures(), pairs_of(pictures(seed=1))
    evaluator = Evaluator(METRICS, n=10, pairs=pairs)
    evaluator.update(images[1:], torch.arange(1, 10))
    with pytest.raises(ValueError, match=r"expected 0\.\.9, each once"):
        evaluator.compute()


def test_the_record_says_how_and_with_which_originals():
    images, originals = pictures(), pictures(seed=1)
    found = evaluate(images, pairs_of(originals))
    assert found["psnr"].protocol.parameters["data_range"] == 255
    ssim = found["ssim"].protocol.parameters
    assert {key: ssim[key] for key in ("window", "sigma", "k1", "k2", "borders")} == {
        "window": 11,
        "sigma": 1.5,
        "k1": 0.01,
        "k2": 0.03,
        "borders": "reflected",
    }
    how = found["consistency"].protocol.parameters
    assert (how["size"], how["downsample"], how["pixels"], how["rounded"]) == (4, "bicubic", "0..1", False)
    assert "torchmetrics" in found["psnr"].protocol.versions
    originals = originals.clone()
    originals[9, 0, 0, 0] ^= 1
    other = evaluate(images, pairs_of(originals))
    for metric in ("psnr", "ssim", "consistency"):
        assert found[metric].protocol.differences(other[metric].protocol) == ["parameters.compared_with"]


def test_equal_images_count_as_one_value_off_by_one_and_it_is_said():
    images, originals = pictures(), pictures(seed=1)
    originals[3:5] = images[3:5]
    result = evaluate(images, pairs_of(originals))["psnr"]
    each = peak_signal_noise_ratio(images, originals).clamp(max=highest_psnr(3 * 16 * 16))
    assert math.isfinite(result.value)
    assert result.value == pytest.approx(each.mean().item(), rel=1e-12)
    assert result.details == {"identical": 2}
    assert "2 of 10 samples equal their originals to the bit" in result.warnings[0]
    assert "76.98 dB" in result.warnings[0]
    same = evaluate(images, pairs_of(images))
    assert (same["psnr"].value, same["psnr"].spread) == (pytest.approx(highest_psnr(768)), pytest.approx(0, abs=1e-9))
    assert (same["ssim"].value, same["consistency"].value) == (pytest.approx(1.0), 0.0)
    assert not same["ssim"].warnings


def test_one_sample_has_no_spread():
    result = evaluate(pictures(1), pairs_of(pictures(1, seed=1)))["psnr"]
    assert result.spread is None


def test_a_low_resolution_image_that_was_given_goes_before_the_original():
    images, originals, given = pictures(), pictures(seed=1), pictures(seed=2, size=4)
    found = evaluate(images, pairs_of(originals), low_res=given)
    assert found["consistency"].value == pytest.approx(consistency(images, given, DOWN).mean().item(), rel=1e-12)
    only = {"consistency": ConsistencyConfig()}
    told = Pairs(lambda i: {"low_res": given[i]}, shape=(3, 16, 16), downsampling=DOWN, unpaired="there is none")
    assert evaluate(images, told, metrics=only)["consistency"].value == found["consistency"].value


def test_size_and_filter_of_consistency_may_be_said_where_nothing_else_does():
    images, originals = pictures(), pictures(seed=1)
    said = {"consistency": ConsistencyConfig(size=4, downsample="bicubic")}
    found = evaluate(images, pairs_of(originals, downsampling=None), metrics=said)["consistency"]
    assert found.value == evaluate(images, pairs_of(originals))["consistency"].value
    assert evaluate(images, pairs_of(originals), metrics=said)["consistency"].protocol.hash == found.protocol.hash


NOTHING = "this model enlarges nothing: evaluate an upsampler"


@pytest.mark.parametrize(
    ("metrics", "options", "line"),
    [
        (
            METRICS,
            {"unpaired": NOTHING, "enlarges_nothing": NOTHING},
            "set metrics.psnr=null metrics.ssim=null metrics.",
        ),
        (
            METRICS,
            {"unpaired": "there is none: give it"},
            "metrics.psnr, metrics.ssim compare each sample with its orig",
        ),
        ({"near": PSNRConfig()}, {"unpaired": "there is none: give it"}, "none: give it, or set metrics.near=null"),
        ({"c": ConsistencyConfig()}, {"enlarges_nothing": NOTHING}, "metrics.c compares each sample with the low-res"),
        ({"c": ConsistencyConfig()}, {"downsampling": None}, "metrics.c.size: it is not known how"),
        ({"c": ConsistencyConfig(size=4)}, {"downsampling": None}, "as in metrics.c.downsample=bicubic"),
        ({"c": ConsistencyConfig(size=8)}, {}, "metrics.c.size=8, but the low-resolution images of this model have 4"),
        ({"c": ConsistencyConfig(downsample="area")}, {}, "downsample=area, but the low-resolution images of this"),
        ({"c": ConsistencyConfig(size=16)}, {"downsampling": None}, "metrics.c.size=16 is not below the 16x16 pixels"),
        ({"ssim": SSIMConfig()}, {"shape": (3, 10, 10)}, "a window of 11x11 pixels, and samples are 10x10"),
    ],
)
def test_what_cannot_be_compared_is_one_line_before_anything_is_drawn(metrics, options, line):
    with pytest.raises(UserError) as caught:
        Evaluator(metrics, n=10, pairs=pairs_of(pictures(), **options))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_smallest_picture_that_the_window_fits_is_measured():
    images = pictures(n=2, size=11)
    assert evaluate(images, pairs_of(images), metrics={"ssim": SSIMConfig()})["ssim"].value == pytest.approx(1.0)


def test_without_pairs_nothing_is_compared():
    with pytest.raises(UserError, match=r"metrics.psnr compares each sample with its original"):
        Evaluator({"psnr": PSNRConfig()}, n=4)


@pytest.mark.parametrize(
    ("theirs", "line"), [({"size": 32}, "32x32 and 3 channels"), ({"channels": 1}, "16x16 and 1 channel:")]
)
def test_originals_of_another_shape_are_refused_before_anything_is_drawn(theirs, line):
    originals = pictures(**theirs)
    evaluator = Evaluator({"psnr": PSNRConfig()}, n=10, pairs=pairs_of(originals, shape=(3, 16, 16)))
    with pytest.raises(UserError) as caught:
        evaluator.prepare()
    assert f"samples of 16x16 and 3 channels are compared with originals of {line}" in str(caught.value)


def test_what_is_kept_of_a_sample_is_a_few_numbers():
    evaluator = Evaluator(METRICS, n=10, pairs=pairs_of(pictures()))
    assert evaluator.bytes_per_sample(3 * 16 * 16) < 100
