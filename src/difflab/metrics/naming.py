"""What a metric is called: the name says which network its features are from, and FID is said of one only."""

from __future__ import annotations

from difflab.config.metrics import FDConfig, FIDConfig, InceptionScoreConfig, KIDConfig
from difflab.errors import UserError
from difflab.metrics.extractors.inception import FILE_NAMES, SHA256_PREFIX, is_fid_network
from difflab.metrics.protocol import ExtractorRecord

_PREFIXES = {"fd": "fd", "kid": "kid", "inception_score": "is"}


def metric_name(config: FIDConfig | FDConfig | KIDConfig | InceptionScoreConfig, extractor: ExtractorRecord) -> str:
    """`fid`, or `fd-lite0`, `kid-inception`, `is-lite0`, ...; other Inception weights add the start of their hash.

    Raises UserError for kind=fid with other weights than those of 2015.
    """
    if config.kind == "fid":
        if not is_fid_network(extractor):
            raise UserError(
                f"kind=fid needs {FILE_NAMES[0]} (sha256 {SHA256_PREFIX}...), the weights given have sha256 "
                f"{extractor.weights_sha256[:8]}...; give that file, or use kind=fd with extractor=inception"
            )
        return "fid"
    return f"{_PREFIXES[config.kind]}-{_network(extractor)}"


def precision_recall_names(extractor: ExtractorRecord) -> tuple[str, str]:
    """`precision` and `recall` in the features of 2015, which papers report; else `precision-lite0`, `recall-lite0`."""
    if is_fid_network(extractor):
        return "precision", "recall"
    return f"precision-{_network(extractor)}", f"recall-{_network(extractor)}"


def _network(extractor: ExtractorRecord) -> str:
    foreign = extractor.name == "inception" and not is_fid_network(extractor)
    return f"{extractor.name}-{extractor.weights_sha256[:8]}" if foreign else extractor.name
