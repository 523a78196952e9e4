"""A bounded number of open things."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RecentlyUsed(Generic[Item]):
    """Items by number, opened on first use; beyond `limit` the least recently used one is closed."""

    def __init__(self, limit: int, open_item: Callable[[int], Item], close_item: Callable[[Item], None]) -> None:
        self._limit = limit
        self._open = open_item
        self._close = close_item
        self._items: OrderedDict[int, Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item:
        if number in self._items:
            self._items.move_to_end(number)
        else:
            while len(self._items) >= self._limit:
                self._close(self._items.popitem(last=False)[1])
            self._items[number] = self._open(number)
        return self._items[number]

    def clear(self) -> None:
        """Closes everything."""
        while self._items:
            self._close(self._items.popitem()[1])
