from difflab.data.recent import RecentlyUsed


def test_the_item_used_longest_ago_is_closed_first():
    opened, closed = [], []
    recent = RecentlyUsed(2, lambda n: opened.append(n) or n, closed.append)
    for number in (1, 2, 1, 3):
        assert recent[number] == number
    assert (opened, closed, len(recent)) == ([1, 2, 3], [2], 2)
    recent.clear()
    assert sorted(closed) == [1, 2, 3]
