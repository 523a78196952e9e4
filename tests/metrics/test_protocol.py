import pytest

from difflab.errors import UserError
from difflab.metrics.protocol import (
    ExtractorRecord,
    Protocol,
    ReferenceRecord,
    Result,
    SamplingRecord,
    check_comparable,
    compare,
    software_versions,
)


def make(value=1.0, *, sampling=None, extractor=None, reference=None, **changes):
    protocol = Protocol(
        **{
            "metric": "fd-lite0",
            "n": 2000,
            "parameters": {"gamma": None, "subsets": 100},
            "extractor": ExtractorRecord(
                **{
                    "name": "lite0",
                    "weights_sha256": "ab" * 32,
                    "feature_dim": 4,
                    "layer": "head",
                    "size": 128,
                    "resize": "bilinear",
                    **(extractor or {}),
                }
            ),
            "reference": ReferenceRecord(
                **{
                    "name": "shapes32",
                    "content_hash": "cd" * 32,
                    "split": "train",
                    "preparation": "none",
                    "n": 10,
                    **(reference or {}),
                }
            ),
            "sampling": SamplingRecord(
                **{
                    "class_balance": "uniform",
                    "seed": 0,
                    "guidance": {"kind": "classifier_free", "scale": 1.5},
                    "sampler": {"kind": "ddim", "steps": 50},
                    "weights": "ema",
                    "rounding": "truncate",
                    "precision": "32-true",
                    "device": "cpu",
                    **(sampling or {}),
                }
            ),
            "versions": software_versions(),
            **changes,
        }
    )
    return Result(metric=protocol.metric, value=value, spread=0.1, protocol=protocol, warnings=["few"])


@pytest.mark.parametrize(
    ("n", "label", "name"),
    [(50_000, "adm", "adm-50k"), (2000, None, "2k"), (512, None, "512"), (2500, None, "2500"), (1000, "val", "val-1k")],
)
def test_short_names(n, label, name):
    result = make(n=n, label=label)
    assert result.protocol.name == name
    assert result.key == f"eval/fd-lite0@{name}"


def test_a_record_comes_back_whole():
    result = make()
    assert Result.from_json(result.to_json()) == result
    assert "\n" not in result.to_json()


def test_a_record_that_was_changed_is_refused():
    forged = make().to_json().replace('"steps": 50', '"steps": 10')
    with pytest.raises(UserError, match="protocol_hash"):
        Result.from_json(forged)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n": 1000}, "n (2000 and 1000)"),
        ({"metric": "kid-lite0"}, "metric"),
        ({"parameters": {"gamma": 0.5, "subsets": 100}}, "parameters.gamma (None and 0.5)"),
        ({"extractor": {"weights_sha256": "00"}}, "extractor.weights_sha256"),
        ({"extractor": {"size": 224}}, "extractor.size"),
        ({"extractor": {"resize": "bicubic"}}, "extractor.resize"),
        ({"reference": {"content_hash": "00"}}, "reference.content_hash"),
        ({"reference": {"n": 11}}, "reference.n"),
        ({"reference": {"split": "val"}}, "reference.split"),
        ({"sampling": {"class_balance": "given", "classes": [1]}}, "sampling.class_balance"),
        ({"sampling": {"seed": 1}}, "sampling.seed"),
        ({"sampling": {"guidance": {"kind": "none"}}}, "sampling.guidance.kind"),
        ({"sampling": {"sampler": {"kind": "ddim", "steps": 10}}}, "sampling.sampler.steps (50 and 10)"),
        ({"sampling": {"weights": "raw"}}, "sampling.weights"),
        ({"sampling": {"rounding": "edm"}}, "sampling.rounding"),
        ({"sampling": {"precision": "bf16-mixed"}}, "sampling.precision"),
        ({"sampling": {"device": "cuda"}}, "sampling.device"),
    ],
)
def test_what_changes_a_number_forbids_comparing(changes, field):
    ours, other = make(), make(**changes)
    assert ours.protocol.hash != other.protocol.hash
    with pytest.raises(UserError) as caught:
        compare(ours, other)
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_classes_are_another_protocol():
    one, two = (make(sampling={"class_balance": "given", "classes": classes}) for classes in ([1, 2], [2, 1]))
    assert one.protocol.hash != two.protocol.hash
    with pytest.raises(UserError, match=r"sampling\.classes \(\[1, 2\] and \[2, 1\]\)"):
        compare(one, two)
    assert Result.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    "changes", [{"versions": {"torch": "9"}}, {"label": "adm"}, {"reference": {"name": "elsewhere/shapes32"}}]
)
def test_names_and_versions_do_not(changes):
    assert compare(make(1.0), make(0.25, **changes)) == -0.75


def test_what_is_studied_may_vary():
    scales = [make(sampling={"guidance": {"kind": "classifier_free", "scale": s}}) for s in (1.0, 2.0, 3.0)]
    check_comparable(scales, vary=["sampling.guidance.scale"])
    check_comparable(scales, vary=["sampling.guidance"])
    check_comparable([])
    with pytest.raises(UserError, match=r"sampling\.guidance\.scale"):
        check_comparable(scales, vary=["sampling.guide"])
    with pytest.raises(UserError, match=r"guidance\.scale \(1.0 and 2.0\)"):
        check_comparable(scales)


def test_the_hash_is_a_fixed_function_of_the_protocol():
    assert Protocol(metric="is-lite0", n=10).hash == "c1497c03a3df0ad5"
