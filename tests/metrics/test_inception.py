import hashlib
import io
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch

from difflab.errors import UserError
from difflab.metrics.config import FIDConfig
from difflab.metrics.extractors import inception
from difflab.metrics.extractors.inception import FILE_NAMES, find_weights, is_fid_network
from difflab.metrics.extractors.loading import get_extractor, release_extractors
from difflab.metrics.frechet import FID
from difflab.metrics.naming import with_network
from difflab.metrics.precision_recall import precision_recall_names
from difflab.metrics.protocol import ExtractorRecord


@pytest.fixture(autouse=True)
def _no_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def record(name="inception", sha256="6726825d" + "0" * 56):
    return ExtractorRecord(name=name, weights_sha256=sha256, feature_dim=4, layer="l", size=8, resize="r")


def test_without_weights_the_file_and_its_place_are_named(tmp_path):
    with pytest.raises(UserError) as caught:
        get_extractor("inception")
    assert FILE_NAMES[0] in str(caught.value)
    assert str(tmp_path / "cache" / "weights") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pth does not exist"):
        get_extractor("inception", str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize("folder", ["cache/weights", "torch/hub/checkpoints"])
def test_the_caches_are_searched(tmp_path, folder, name):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).write_bytes(b"")
    assert find_weights(None) == tmp_path / folder / name


@pytest.mark.parametrize("failure", [urllib.error.URLError("no route"), TimeoutError("timed out")])
def test_a_failed_download_says_what_to_do(monkeypatch, failure):
    def fail(url, timeout):
        assert timeout <= 10
        raise failure

    monkeypatch.delenv("DIFFLAB_OFFLINE")
    monkeypatch.setattr(inception.urllib.request, "urlopen", fail)
    with pytest.raises(UserError, match=r"download failed .*put weights-inception"):
        find_weights(None)


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("DIFFLAB_OFFLINE")
    monkeypatch.setattr(inception.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"weights"))
    with pytest.raises(UserError, match="damaged"):
        find_weights(None)
    assert not list(tmp_path.rglob("*.pth"))
    monkeypatch.setattr(inception, "SHA256_PREFIX", hashlib.sha256(b"weights").hexdigest()[:8])
    path = find_weights(None)
    assert path == tmp_path / "cache" / "weights" / FILE_NAMES[0]
    assert path.read_bytes() == b"weights"


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_files_are_not_unpickled_without_restrictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pth"
    torch.save({"fc.weight": _Trap()}, path)
    with pytest.raises(UserError, match="not a state dict"):
        get_extractor("inception", str(path))
    assert not Path("sprung").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps([1, 2])])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a state dict") as caught:
        get_extractor("inception", str(path))
    assert "\n" not in str(caught.value)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="not a state dict of the 2015 Inception network"):
        get_extractor("inception", str(path))


def test_fid_is_said_of_one_network_only():
    fid = FID(FIDConfig(), "fid")
    fid.check_extractor(record())
    assert fid.logged_name(record()) == "fid"
    with pytest.raises(UserError, match="kind=fd with extractor=inception"):
        fid.check_extractor(record(sha256="ab" * 32))
    with pytest.raises(UserError, match="kind=fid needs"):
        fid.check_extractor(record(name="lite0"))


def test_names_say_the_extractor():
    assert with_network("fd", record("lite0")) == "fd-lite0"
    assert with_network("kid", record()) == "kid-inception"
    assert with_network("fd", record(sha256="ab" * 32)) == "fd-inception-abababab"
    assert with_network("fd", record("random")) == "fd-random"


def test_precision_and_recall_have_bare_names_in_the_features_papers_use():
    assert precision_recall_names(record()) == ("precision", "recall")
    assert precision_recall_names(record("lite0")) == ("precision-lite0", "recall-lite0")
    foreign = ("precision-inception-abababab", "recall-inception-abababab")
    assert precision_recall_names(record(sha256="ab" * 32)) == foreign


def test_the_real_architecture_runs_on_drawn_weights(tmp_path, monkeypatch, noise_images):
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with monkeypatch.context() as patched:
        patched.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        original = theirs.FeatureExtractorInceptionV3("drawn", ["2048", "logits_unbiased"])
    path = tmp_path / "drawn.pth"
    torch.save(original.state_dict(), path)
    images = noise_images(2, size=32)
    with torch.inference_mode():
        pool, logits = original(images)

    extractor = get_extractor("inception", str(path))
    features = extractor(images)
    release_extractors()
    torch.testing.assert_close(features.pool, pool, rtol=0, atol=0)
    torch.testing.assert_close(features.logits, logits, rtol=0, atol=0)
    assert pool.shape == (2, 2048)
    assert logits.shape == (2, 1008)
    assert not is_fid_network(extractor.record)
    assert extractor.record.resize == "bilinear, TensorFlow 1"
