"""The shapes oracle's report as results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from difflab.errors import UserError
from difflab.metrics.protocol import Protocol, Result

_NOT_RESULTS = ("n", "resolution", "self_error")


def oracle_results(
    images: Tensor, protocol: Protocol, labels: Tensor | None = None, class_names: Sequence[str] | None = None
) -> list[Result]:
    """A result for each number of the report (`oracle-well-formed-rate`, ...); the first has all of it as details.

    images: uint8 [n, 3 or 1, H, H]; the metric and parameters of `protocol` are filled in. labels int64 [n] number the
    class_names: with both, and where the oracle knows all the names, one result is `oracle-class-accuracy`.
    Raises UserError for images that the oracle cannot read.
    """
    from difflab.metrics.oracle import Oracle, reads_classes

    oracle = Oracle()
    classes = class_names if class_names is not None and reads_classes(class_names) else None
    try:
        report = oracle.report(images.expand(-1, 3, -1, -1), labels, classes).as_dict()
    except ValueError as error:
        raise UserError(f"the shapes oracle cannot judge these samples: {error}; set metrics.oracle=null") from None
    parameters = {**protocol.parameters, **dataclasses.asdict(oracle)}
    results: list[Result] = []
    for key, value in report.items():
        if key in _NOT_RESULTS or isinstance(value, dict):
            continue
        metric = f"oracle-{key.replace('_', '-')}"
        named_by = {"class_names": list(classes)} if key == "class_accuracy" and classes is not None else {}
        named = protocol.model_copy(update={"metric": metric, "parameters": parameters | named_by})
        results.append(Result(metric=metric, value=float(value), protocol=named, details={} if results else report))
    return results
