"""Work that may take seconds: how far it is, told while it goes on; and an end when nobody waits for it any more."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from ..progress import listening
from ..texts import later
from .story import progress_html

PATIENCE = 0.5  # seconds of work before its progress is shown: what is over sooner must not flash


class Running:
    """The runs of all visits, each with what ends it."""

    def __init__(self):
        self._runs: dict[str, list[threading.Event]] = {}

    @contextmanager
    def of(self, visit: str) -> Iterator[threading.Event]:
        """A run's end, known as the visit's for as long as the block lasts, and set after it."""
        left = threading.Event()
        self._runs.setdefault(visit, []).append(left)
        try:
            yield left
        finally:
            left.set()
            waiting = [other for other in self._runs.pop(visit, []) if other is not left]
            if waiting:
                self._runs[visit] = waiting

    def stop(self, visit: str) -> bool:
        """Ends the runs of a visit; whether there were any."""
        runs = self._runs.pop(visit, [])
        for left in runs:
            left.set()
        return bool(runs)


def watch(work: Callable, left: threading.Event) -> Iterator[tuple[str, Future | None]]:
    """Does the work in a thread: (how far it is as HTML, None) now and then, and at last ("", the work, done).

    Work that walks through `progress.steps` ends with `Cancelled` soon after `left` is set.
    """
    where, began = [0, 1, later("starting")], time.monotonic()

    def listener(*now) -> bool:
        where[:] = now
        return not left.is_set()

    def listened():
        with listening(listener):
            return work()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(listened)
        try:
            while wait([running], 0.25).not_done:
                if (seconds := time.monotonic() - began) > PATIENCE:
                    yield progress_html(*where, seconds), None
            yield "", running
        finally:
            left.set()  # whoever stops listening ends it; the pool waits for that
