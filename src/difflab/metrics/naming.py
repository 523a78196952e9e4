"""What a metric is called: the name says which network its features are from, and FID is said of one only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


def distinct_names(records: Sequence[Mapping[str, Any]], earlier: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """What each record is called beside the earlier ones: its name, which the first protocol to have it keeps.

    Under any other protocol the name goes on with the start of its hash, `fd-lite0@512-3fa2c1`. Records as written by
    `Result.to_json`.
    """
    owners: dict[str, Any] = {}
    for record in [*earlier, *records]:
        owners.setdefault(record["name"], record.get("protocol_hash"))
    return [
        record["name"]
        if owners[record["name"]] == record.get("protocol_hash")
        else with_hash(record["name"], record["protocol_hash"])
        for record in records
    ]


def with_hash(name: str, protocol_hash: str) -> str:
    """`fd-lite0@512-3fa2c1`."""
    return f"{name}-{protocol_hash[:6]}"


def _network(extractor: ExtractorRecord) -> str:
    foreign = extractor.name == "inception" and not is_fid_network(extractor)
    return f"{extractor.name}-{extractor.weights_sha256[:8]}" if foreign else extractor.name
