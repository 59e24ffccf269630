"""How long work tells where it is, and hears that nobody waits for it any more.

Work that takes seconds walks through `steps`; whoever wants to know calls it inside `listening`. Neither knows the other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Listener = Callable[[int, int, str], bool | None]  # (done, of, what is being done); False: stop
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class Cancelled(Exception):
    """Nobody waits for this work any more."""


def steps(items: Sequence[Item], doing: str | Callable[[Item], str]) -> Iterator[Item]:
    """The items one by one, the listener told before each and after the last. Raises Cancelled when it says False.

    doing: what is being done, the same for all items or each one's own.
    """
    listener = _listener.get()
    for done in range(len(items) + 1):
        if listener is not None:
            told = doing(items[min(done, len(items) - 1)]) if callable(doing) and len(items) else doing
            if listener(done, len(items), str(told)) is False:
                raise Cancelled
        if done < len(items):
            yield items[done]


@contextmanager
def listening(listener: Listener):
    """Within this block, `steps` reports to `listener`, in this thread or task only."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
