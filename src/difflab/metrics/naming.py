"""Names of results, which include the network whose features they use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from difflab.metrics.extractors.inception import is_fid_network
from difflab.metrics.protocol import ExtractorRecord


def with_network(metric: str, extractor: ExtractorRecord) -> str:
    """`fd-lite0`, `kid-inception`, ...; Inception weights other than those of 2015 append the start of their hash."""
    foreign = extractor.name == "inception" and not is_fid_network(extractor)
    network = f"{extractor.name}-{extractor.weights_sha256[:8]}" if foreign else extractor.name
    return f"{metric}-{network}"


def distinct_names(records: Sequence[Mapping[str, Any]], earlier: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """The name of each record next to the earlier ones: its own, which the first protocol to use it keeps.

    Other protocols append the start of their hash, `fd-lite0@512-3fa2c1`. Records as written by
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
