"""The 2015 Inception network of FID and inception score, through torch-fidelity."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import urllib.error
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from difflab.cache import cache_root
from difflab.errors import UserError
from difflab.files import sha256_of, write_shared
from difflab.metrics.extractors.base import FeatureExtractor, Features
from difflab.metrics.protocol import ExtractorRecord

SHA256_PREFIX = "6726825d"
"""Start of the hash of the converted 2015 weights; torch-fidelity and pytorch-fid publish the same file."""

FILE_NAMES = (f"weights-inception-2015-12-05-{SHA256_PREFIX}.pth", f"pt_inception-2015-12-05-{SHA256_PREFIX}.pth")
FEATURES = 2048

_DOWNLOAD_TIMEOUT_S = 10.0
_log = logging.getLogger(__name__)


class InceptionExtractor(FeatureExtractor):
    """2048 pool_3 features and 1008 logits without bias, as in the TensorFlow graph and torch-fidelity.

    weights: the file; None looks in the caches, then downloads (see `find_weights`).
    Raises UserError naming the file if it is missing or is not an Inception state dict.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = find_weights(weights)
        try:
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=_plain_tensors(path),  # pyrefly: ignore[bad-argument-type]
            )
        except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).strip().partition("\n")[0] or "it is empty"
            raise UserError(f"{path} is not a state dict of the 2015 Inception network ({reason})") from None
        super().__init__(network, device)
        self.record = ExtractorRecord(
            name="inception",
            weights_sha256=sha256_of(path),
            feature_dim=FEATURES,
            layer="pool_3",
            size=network.INPUT_IMAGE_SIZE,
            resize="bilinear, TensorFlow 1",
        )

    def _features(self, images: Tensor) -> Features:
        pool, logits = self.network(images)
        return Features(pool, logits)


def is_fid_network(record: ExtractorRecord) -> bool:
    """Whether this is the network with the weights that the name FID stands for."""
    return record.name == "inception" and record.weights_sha256.startswith(SHA256_PREFIX)


def find_weights(weights: Path | None) -> Path:
    """The weights file: `weights` itself, or the first one in the caches, or a fresh download.

    The caches are <DIFFLAB_CACHE>/weights and torch's hub folder (TORCH_HOME). DIFFLAB_OFFLINE=1 forbids downloads.
    Raises UserError saying which file to put where.
    """
    if weights is not None:
        if not weights.is_file():
            raise UserError(f"metrics weights={weights} does not exist; give the path of {FILE_NAMES[0]}")
        return weights
    return cached_weights() or _download(_our_folder() / FILE_NAMES[0])


def cached_weights() -> Path | None:
    """The weights file in one of the caches, or None."""
    folders = (_our_folder(), Path(torch.hub.get_dir()) / "checkpoints")
    return next((folder / name for folder in folders for name in FILE_NAMES if (folder / name).is_file()), None)


def _our_folder() -> Path:
    return cache_root() / "weights"


def _download(target: Path) -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    help_text = f"put {target.name} in {target.parent}, or give its path as weights="
    if os.environ.get("DIFFLAB_OFFLINE", "0") not in ("", "0"):
        raise UserError(f"the Inception weights are missing and DIFFLAB_OFFLINE is set: {help_text}")
    _log.info("downloading the Inception weights to %s", target)
    try:
        with urllib.request.urlopen(URL_INCEPTION_V3, timeout=_DOWNLOAD_TIMEOUT_S) as response:
            content = response.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"the Inception weights are missing and their download failed ({reason}): {help_text}"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(SHA256_PREFIX):
        raise UserError(f"the download of the Inception weights is damaged (sha256 {found[:16]}): {help_text}")
    write_shared(target, content)
    return target


def _plain_tensors(path: Path) -> io.BytesIO:
    """torch-fidelity unpickles without restrictions, so it receives a copy that was read with them."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TypeError("it does not hold a flat dictionary of tensors")
    copy = io.BytesIO()
    torch.save(state, copy)
    copy.seek(0)
    return copy
