"""Classes by number or by name, where names are numbers, too."""

from __future__ import annotations

import pytest

from difflab.errors import UserError
from difflab.requests.classes import class_numbers

FROM_ONE = ["1", "10", "2"]


def test_a_number_that_is_the_name_of_its_own_class_is_clear() -> None:
    assert class_numbers([0, "0", 2], 3, ["0", "1", "2"]) == [0, 0, 2]


@pytest.mark.parametrize(("number", "is_called"), [(1, "class 1 is called '10'"), (10, "there is no class 10")])
def test_a_number_that_is_the_name_of_another_class_is_refused(number: int, is_called: str) -> None:
    with pytest.raises(UserError) as caught:
        class_numbers([number], 3, FROM_ONE)
    other = FROM_ONE.index(str(number))
    assert f"{is_called}, while class {other} is called '{number}': give {other}, or the name in quotes" in str(
        caught.value
    )


def test_the_same_in_quotes_is_the_name_and_other_numbers_are_numbers() -> None:
    assert class_numbers(["1", "10", 0], 3, FROM_ONE) == [0, 1, 0]
