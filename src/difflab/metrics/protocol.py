"""A number and how it was measured: two numbers can be compared only where both were measured alike."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue

from difflab import __version__
from difflab.config.base import Config
from difflab.errors import UserError

NEWER = ("sampling.pipeline", "sampler.sigmas")
"""How fields end that older records have not; where they are empty the hash is that of an older record."""

NAMES_ONLY = ("label", "versions", "reference.name", "sampling.name", "sampling.compiled", "parameters.classifier")
"""Fields that are recorded and not hashed: names, and what changes rounding alone, as software versions (patch releases
would split every history) and compiled code (which large networks have, and small ones beside them have not). A
classifier is known by its weights, wherever it lies."""


class ExtractorRecord(Config):
    """A feature extractor: the network, its weights, and how images become its input.

    weights_sha256 is of the weights file (of the tensors, for drawn weights); size is the input side in pixels.
    """

    name: str
    weights_sha256: str
    feature_dim: int
    layer: str
    size: int
    resize: str


class ReferenceRecord(Config):
    """The images compared with: content_hash is of the data set's index, preparation what was done to each image,
    n how many of them were used."""

    name: str
    content_hash: str
    split: str
    preparation: str
    n: int


class SamplingRecord(Config):
    """How the judged images were made.

    class_balance: none (no classes), uniform (drawn from the seed), given (`classes`, cycled through by sample number),
        data (those of a data set, an archive or a file).
    guidance and sampler are their configurations as plain containers; pipeline is what else took part: the stages of a
        cascade, and where captions and pictures that samples follow come from.
    compiled: whether a network ran as code that torch.compile made of it.
    """

    class_balance: Literal["none", "uniform", "given", "data"]
    classes: list[int] | None = None
    seed: int
    guidance: dict[str, JsonValue]
    sampler: dict[str, JsonValue]
    pipeline: dict[str, JsonValue] | None = None
    weights: Literal["ema", "raw"]
    rounding: str
    precision: str
    device: str
    compiled: bool = False


class GivenRecord(Config):
    """Images that are made already, by whomever: content_hash is of the pixels of those that are judged and of their
    classes, where they have some, in their order; name is that of their folder or archive."""

    name: str
    content_hash: str


class Protocol(Config):
    """Everything that changes a metric's number, and what names it.

    metric: as logged (`fid`, `fd-lite0`). n: sample count. parameters: the metric's own constants.
    extractor, reference, sampling: None where the metric has no such part.
    """

    metric: str
    n: int
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    extractor: ExtractorRecord | None = None
    reference: ReferenceRecord | None = None
    sampling: SamplingRecord | GivenRecord | None = None
    label: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The short name: `2k`, `512`, `adm-50k`."""
        count = f"{self.n // 1000}k" if self.n % 1000 == 0 else str(self.n)
        return count if self.label is None else f"{self.label}-{count}"

    @property
    def hash(self) -> str:
        """16 hex digits of everything that changes the number."""
        return _digest(self.measured())

    @property
    def yardstick(self) -> str:
        """The same of how samples are judged, whichever way they were drawn: a sweep varies that, and this must not.

        Of a likelihood, which judges no samples, of the images whose likelihood it is, however it is found.
        """
        return _digest({key: value for key, value in self.measured().items() if not self.is_varied(key)})

    def is_varied(self, key: str) -> bool:
        """Whether a field is none of the yardstick's."""
        judges = self.sampling is not None or self.extractor is not None
        return _named_by(key, ["sampling" if judges else "parameters"])

    def measured(self) -> dict[str, Any]:
        """The fields that are hashed, flat: `sampling.guidance.scale` -> value."""
        return {
            key: value
            for key, value in _flat(self.model_dump(mode="json"))
            if not _named_by(key, NAMES_ONLY) and not (value is None and key.endswith(NEWER))
        }

    def differences(self, other: Protocol) -> list[str]:
        """Names of the hashed fields in which the two differ."""
        ours, theirs = self.measured(), other.measured()
        missing = object()
        return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key, missing) != theirs.get(key, missing))


class Result(Config):
    """One number. spread: standard deviation over subsets or splits, where the metric has them; of a likelihood and
    of metrics that score each sample the standard error of the mean over the images.

    details: what else the metric found, as plain JSON values; warnings: what a reader of the number must know.
    """

    metric: str
    value: float
    spread: float | None = None
    protocol: Protocol
    details: dict[str, JsonValue] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)

    @property
    def name(self) -> str:
        """`fd-lite0@2k`."""
        return f"{self.metric}@{self.protocol.name}"

    @property
    def key(self) -> str:
        """The logged name, `eval/fd-lite0@2k`."""
        return f"eval/{self.name}"

    def to_json(self) -> str:
        """The whole record on one line; `Result.model_validate_json` reads it back."""
        return json.dumps({"name": self.name, "protocol_hash": self.protocol.hash, **self.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The inverse of to_json.

        Raises UserError where the record was changed after it was written.
        """
        values = json.loads(text)
        values.pop("name", None)
        written = values.pop("protocol_hash", None)
        result = cls.model_validate(values)
        if written not in (None, result.protocol.hash):
            raise UserError(f"{result.name}: the record's protocol_hash is {written}, its protocol's is different")
        return result


def software_versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    packages = ("torch", "torch-fidelity", "torchmetrics", "numpy")
    return {"difflab": __version__} | {package: importlib.metadata.version(package) for package in packages}


def compare(a: Result, b: Result, vary: Sequence[str] = ()) -> float:
    """b.value - a.value, for results of one protocol.

    vary names fields that may differ because they are what is studied; `sampling.guidance` covers all below it.
    Raises UserError that names the fields in which the protocols differ otherwise.
    """
    check_comparable([a, b], vary)
    return b.value - a.value


def check_comparable(results: Iterable[Result], vary: Sequence[str] = ()) -> None:
    """Raise UserError unless all results have one protocol, apart from the fields `vary` (see `compare`)."""
    for first, other in itertools.pairwise(results):
        differing = [key for key in first.protocol.differences(other.protocol) if not _named_by(key, vary)]
        if differing:
            shown = ", ".join(
                f"{key} ({_shown(first.protocol, key)} and {_shown(other.protocol, key)})" for key in differing
            )
            raise UserError(f"{first.name} and {other.name} are of different protocols and cannot be compared: {shown}")


def _digest(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(protocol: Protocol, key: str) -> str:
    return str(protocol.measured().get(key, "absent"))


def _named_by(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
