from __future__ import annotations

import pytest

from difflab.errors import UserError, user_errors


def test_a_mistake_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(("what", "message"), [("sampler", "sampler: too many steps"), ("", "too many steps")])
def test_what_the_low_layers_refuse_becomes_the_user_s(what: str, message: str) -> None:
    with pytest.raises(UserError) as error, user_errors(what):
        raise ValueError("too many steps")
    assert str(error.value) == message
    assert isinstance(error.value.__cause__, ValueError)


def test_a_mistake_is_named_once() -> None:
    with pytest.raises(UserError) as error, user_errors("outer"), user_errors("inner"):
        raise ValueError("wrong")
    assert str(error.value) == "inner: wrong"


def test_bugs_stay_bugs() -> None:
    with pytest.raises(KeyError), user_errors("sampler"):
        raise KeyError("bug")
