import pytest

from difflab.data.bad_samples import BadSample, BadSamples
from difflab.errors import UserError


def test_a_sample_is_counted_once_however_often_it_is_met(caplog):
    bad = BadSamples(total=100, max_fraction=0.01)
    for _ in range(3):
        bad.add([(7, "0.tar/7: damaged")])
    assert (len(bad.found), bad.allowed) == (1, 1)
    assert caplog.text.count("0.tar/7: damaged") == 1


def test_more_than_allowed_stop_with_the_first_few_named():
    bad = BadSamples(total=100, max_fraction=0.0)
    with pytest.raises(
        UserError, match=r"7 bad of 100 samples, 0 allowed: s0; s1; s2; s3; s4 and 2 more \(repair the data"
    ):
        bad.add([(i, f"s{i}") for i in range(7)])


def test_a_bad_sample_names_shard_and_key():
    assert str(BadSample("0.tar", "a/b", "has no image")) == "0.tar/a/b: has no image"
