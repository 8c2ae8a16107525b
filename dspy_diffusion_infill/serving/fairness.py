"""Whose turn it is: of all clients that wait, the one that was served least.

Pure: no dspy, no torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """A queue for each client, taken from by turns weighted with cost.

    A client that comes, or comes back, starts level with the one served last: idling earns no credit.

    Source: virtual token counter (arXiv:2401.00588). Differs: cost is known when an item arrives.

    Example:
        >>> queue = FairQueue()
        >>> for client, item, cost in (("a", "a1", 9), ("a", "a2", 9), ("b", "b1", 1), ("b", "b2", 1)):
        ...     queue.put(client, item, cost)
        >>> [queue.take() for _ in range(4)]
        ['a1', 'b1', 'b2', 'a2']
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[Item, float]]] = {}
        self._served: dict[str, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, client: str, item: Item, cost: float) -> None:
        """Add an item behind the client's others."""
        self._enter(client)
        self._waiting[client].append((item, cost))

    def put_back(self, client: str, item: Item, cost: float) -> None:
        """Undo a `take`: the item is the client's next one again."""
        self._enter(client)
        self._waiting[client].appendleft((item, cost))
        self._served[client] -= cost

    def take(self) -> Item:
        """The next item of the client that was served least; the first to come, of equals."""
        client = self._next()
        self._level = self._served[client]
        item, cost = self._waiting[client].popleft()
        self._served[client] += cost
        if not self._waiting[client]:
            del self._waiting[client]
        self._served = {
            name: served
            for name, served in self._served.items()
            if name in self._waiting or served > self._level
        }
        if not self._waiting:  # nobody had to wait for anybody
            self._served, self._level = {}, 0.0
        return item

    def peek(self) -> Item:
        """What `take` would give."""
        return self._waiting[self._next()][0][0]

    def discard(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take out all items of which this is so."""
        found = [item for items in self._waiting.values() for item, _ in items if unwanted(item)]
        for client, items in list(self._waiting.items()):
            self._waiting[client] = deque((item, cost) for item, cost in items if not unwanted(item))
            if not self._waiting[client]:
                del self._waiting[client]
        return found

    def _enter(self, client: str) -> None:
        self._waiting.setdefault(client, deque())
        self._served[client] = max(self._served.get(client, self._level), self._level)

    def _next(self) -> str:
        return min(self._waiting, key=lambda client: self._served[client])
