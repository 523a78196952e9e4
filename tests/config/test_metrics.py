import pytest
from pydantic import TypeAdapter, ValidationError

from difflab.config.base import Config
from difflab.config.groups import choices_of, contents
from difflab.config.metrics import MetricsConfig, known_metric
from difflab.config.validate import validate
from difflab.errors import UserError
from difflab.metrics.config import FDConfig, KIDConfig

CHOICES = choices_of("metrics")
METRICS = TypeAdapter(MetricsConfig)


class Outer(Config):
    metrics: MetricsConfig


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_valid_and_has_every_option(choice):
    written = contents("metrics", choice)
    for name, config in METRICS.validate_python(written).items():
        assert config.plain() == written[name]


def test_the_choices_exist():
    assert set(CHOICES) >= {"shapes", "guidance", "fid50k", "adm50k", "lite0", "none"}
    assert contents("metrics", "none") == {}


def test_null_switches_a_metric_off():
    assert METRICS.validate_python({"kid": None, "fd": {"kind": "fd"}}) == {"kid": None, "fd": FDConfig()}


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"fid": {"kind": "fd"}}, "metrics.fid is called FID but has kind=fd"),
        ({"my_fid_lite": {"kind": "fd"}}, "called FID"),
        ({"a": {"kind": "fd"}, "b": {"kind": "fd"}}, "metrics.a and metrics.b would be logged as one"),
        ({"fid": {"kind": "fid", "extractor": "lite0"}}, "extractor"),
        ({"fd": {"kind": "fd", "weights": "w.pth"}}, "weights=w.pth is not read by extractor=lite0"),
        ({"fd": {"kind": "fd", "label": "ADM 50k"}}, "label"),
        ({"kid": {"kind": "kid", "n": 100}}, "subset_size=1000 exceeds n=100"),
        ({"kid": {"kind": "kid", "reference_n": 100}}, "subset_size=1000 exceeds reference_n=100"),
        ({"pr": {"kind": "precision_recall", "n": 3}}, "k=3 neighbours need at least 4 images, n=3"),
        ({"pr": {"kind": "precision_recall", "reference_n": 5, "k": 5}}, "at least 6 images, reference_n=5"),
        ({"pr": {"kind": "precision_recall", "k": 0}}, "metrics.pr.k=0"),
        ({"is": {"kind": "inception_score", "n": 5}}, "splits=10 exceeds n=5"),
        ({"fd": {"kind": "frechet"}}, "metrics.fd.kind='frechet' is not known"),
        ({"fd": {"n": 10}}, "metrics.fd has no kind: set metrics.fd.kind=..., one of 'fid', "),
        ({"fd": 3}, "metrics.fd=3: this is a section, not a value; set its keys"),
        ({"kid": {"kind": "kid", "subset_sise": 3}}, "did you mean 'metrics.kid.subset_size'?"),
        (
            {"kid": {"kind": "kid", "k": 3}},
            "metrics.kid.kind=kid has no 'k': leave it out, or remove it with ~metrics.kid.k; precision_recall has it",
        ),
    ],
)
def test_mistakes_are_named(metrics, told):
    with pytest.raises(UserError) as caught:
        validate(Outer, {"metrics": metrics})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_makes_two_of_a_kind_distinct():
    two = {"a": {"kind": "fd"}, "b": {"kind": "fd", "label": "val"}}
    assert len(METRICS.validate_python(two)) == 2


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="subset_sise"):
        KIDConfig.model_validate({"subset_sise": 3})


@pytest.mark.parametrize(
    ("metric", "kind", "larger"),
    [
        ("fid", "fid", False),
        ("fd-lite0", "fd", False),
        ("rfd-lite0", "fd", False),
        ("rfid", "fid", False),
        ("lpips", "lpips", False),
        ("perceptual-lite0", "perceptual", False),
        ("codebook-perplexity", "codebook", True),
        ("kl", "latent_kl", None),
        ("oracle-same-objects", "oracle_agreement", True),
        ("kid-inception-abababab", "kid", False),
        ("consistency", "consistency", False),
        ("is-inception", "inception_score", True),
        ("precision", "precision_recall", True),
        ("recall-lite0", "precision_recall", True),
        ("psnr", "psnr", True),
        ("ssim", "ssim", True),
        ("oracle-well-formed-rate", "oracle", True),
        ("oracle-mean-fit", "oracle", True),
        ("oracle-class-accuracy", "oracle", True),
        ("oracle-mean-objects", "oracle", None),
        ("class-accuracy", "classes", True),
        ("class-confidence", "classes", True),
    ],
)
def test_it_is_known_which_way_results_get_better(metric, kind, larger):
    assert known_metric(metric) == (kind, larger)


@pytest.mark.parametrize("metric", ["vmaf", "kids", "fdx-lite0", "class", ""])
def test_of_other_names_nothing_is_known(metric):
    assert known_metric(metric) is None
