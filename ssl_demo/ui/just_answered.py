"""What was answered a moment ago: a move in a lecture asks by itself, by the tab that it opens, and by the room around it.
So it is noted what a visit's page was given by such a move, which need not be drawn and sent again.

Only answers on the example photos are kept, and for seconds: of what a visitor brought nothing stays here.
"""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")
SECONDS, LONGER = 4.0, 15.0  # the second: how long a busy host may take until a page that was given a story asks for it


class JustAnswered:
    """Answers by what was asked, each computed once even by callers in several threads at once."""

    def __init__(self, seconds: float = SECONDS):
        self._seconds, self._lock = seconds, threading.Lock()
        self._kept: dict[Hashable, tuple[float, Future]] = {}
        self._given: dict[str, tuple[float, Hashable]] = {}  # by visit

    def once(self, asked: Hashable | None, answer: Callable[[], Answer]) -> Answer:
        """What `answer()` returned to whoever asked the same just now, or else returns. Its exceptions go to all who waited,
        and are not kept. asked: None for what must not be kept.
        """
        if asked is None:
            return answer()
        with self._lock:
            now = time.monotonic()
            self._kept = {key: kept for key, kept in self._kept.items() if now - kept[0] < self._seconds or not kept[1].done()}
            known = self._kept.get(asked)
            began, future = known or (now, Future())
            self._kept[asked] = began, future
        if known:
            return future.result()
        try:
            future.set_result(answer())
        except BaseException as error:
            future.set_exception(error)
            with self._lock:
                self._kept.pop(asked, None)
            raise
        with self._lock:  # seconds count from when it was known
            self._kept[asked] = time.monotonic(), future
        return future.result()

    def give(self, visit: str | None, asked: Hashable | None) -> None:
        """Notes that a visit's page has been given the answer to this, and will ask for it by itself. None: any other answer."""
        with self._lock:
            now = time.monotonic()
            self._given = {one: given for one, given in self._given.items() if now - given[0] < LONGER and one != visit}
            if visit and asked is not None:
                self._given[visit] = now, asked

    def was_given(self, visit: str | None, asked: Hashable | None) -> bool:
        """Whether the page has it already, and no other since."""
        began, given = self._given.get(visit, (float("-inf"), None))
        return asked is not None and given == asked and time.monotonic() - began < LONGER
