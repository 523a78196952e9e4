from typing import get_args

from difflab.data.left_out import LeftOut, Reason, described, in_total


def test_counts_are_added_up_by_reason_with_the_first_example():
    kinds = [
        LeftOut(reason="link", count=2, example="x in 0.tar"),
        LeftOut(reason="dotted", count=1, example="2.5.png in 0.tar"),
        LeftOut(reason="link", count=3, example="y in 1.tar"),
    ]
    total = in_total(kinds)
    assert [(kind.reason, kind.count, kind.example) for kind in total] == [
        ("dotted", 1, "2.5.png in 0.tar"),
        ("link", 5, "x in 0.tar"),
    ]
    line = described(total)
    assert line.startswith("of the files in the tars, 6 are not read: 1 images with further dots in their names")
    assert "data.keys=last_dot reads them), such as 2.5.png in 0.tar; 5 links to nothing in the tar" in line


def test_every_reason_is_put_in_words():
    total = in_total(LeftOut(reason=reason, count=1, example="x") for reason in get_args(Reason))
    assert len(total) == len(get_args(Reason))
    assert "\n" not in described(total)
