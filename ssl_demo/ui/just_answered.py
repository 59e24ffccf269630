"""What was answered a moment ago: a move in a lecture asks by itself, by the tab that it opens, and by the room around that tab.

Only answers on the example photos are kept, and for seconds: of what a visitor brought nothing stays here.
"""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")
SECONDS = 4.0


class JustAnswered:
    """Answers by what was asked, each computed once even by callers in several threads at once."""

    def __init__(self, seconds: float = SECONDS):
        self._seconds, self._lock = seconds, threading.Lock()
        self._kept: dict[Hashable, tuple[float, Future]] = {}

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
