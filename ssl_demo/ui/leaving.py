"""When a visitor leaves, what they brought and trained goes: pictures in memory, files that were uploaded, runs and weights.

A page that is open holds a connection, the "heartbeat". Gradio keeps what a visit held for an hour after that has ended, and
files by their age; here both go soon after, and a page that comes back within that time (a weak network) finds everything.
"""

import asyncio
import contextlib
import datetime
import logging
import math
import os
import threading
import time
from collections import Counter
from pathlib import Path

from gradio.context import LocalContext
from starlette.middleware import Middleware

from ..texts import later
from . import lab_visits as visits
from . import toasts

AWAY = 90.0  # seconds after which nothing of a visit is left
EVERY = 15.0  # seconds between two looks
TOLD = later("two minutes")  # what people read: no less than both together


class Guests:
    """Which visits are here, and which files they brought. One for each app that is served."""

    def __init__(self):
        self.here: Counter[str] = Counter()  # open connections of each visit
        self.left: dict[str, float] = {}  # when the last one of a visit ended
        self.files: dict[str, set[str]] = {}  # by file, the visits that brought it
        self.door = threading.Lock()  # pages come and go while another thread looks after those that went

    def come(self, visit: str) -> None:
        with self.door:
            self.here[visit] += 1

    def go(self, visit: str) -> None:
        with self.door:
            self.here[visit] -= 1
            self.left[visit] = time.monotonic()

    def is_here(self, visit: str) -> bool:
        """Whether a visit goes on, or has ended only just now."""
        return self.here[visit] > 0 or time.monotonic() - self.left.get(visit, -AWAY) < AWAY

    def is_anew(self, visit: str) -> bool:
        """Whether, as a connection of a visit ends, its page has connected anew already."""
        return self.here[visit] > 1

    def forget(self, app) -> None:
        """Frees what visits held that are over. Programs have no open page: theirs is over when they stop asking."""
        blocks, holder = app.get_blocks(), app.state_holder
        now, asked = datetime.datetime.now(), visits.owners()
        for visit in {*list(holder.session_data), *asked}:
            unused = (now - holder.time_last_used.get(visit, datetime.datetime.min)).total_seconds()
            unused = min(unused, time.monotonic() - asked.get(visit, -math.inf))  # to begin a run may take longer than AWAY
            if not self.is_here(visit) and unused > AWAY:
                if visit in asked:
                    visits.leave(visit)
                holder.session_data.pop(visit, None)
                holder.time_last_used.pop(visit, None)
                blocks._queue.pending_messages_per_session.pop(visit, None)
        with self.door:
            self.left = {visit: when for visit, when in self.left.items() if time.monotonic() - when < AWAY}
            self.here = +self.here
        self.delete(blocks)

    def delete(self, blocks) -> None:
        """Removes the files that no present visit brought. The page's own, such as the example in the photo's box, stay."""
        known = set(self.files).union(*blocks.temp_file_sets)
        kept = set().union(*(getattr(block, "keep_in_cache", ()) for block in list(blocks.blocks.values())))
        for file in known - kept:
            wanted = any(self.is_here(visit) for visit in list(self.files.get(file, ())))
            with contextlib.suppress(OSError):
                if wanted or time.time() - os.stat(file).st_ctime < AWAY:
                    continue
                os.remove(file)
                Path(file).parent.rmdir()  # named after what was in it
            if not os.path.exists(file):
                self.files.pop(file, None)
                for files in blocks.temp_file_sets:
                    files.discard(file)


guests = Guests()


def brought(path: str) -> None:
    """Notes that a file came with the visit that is being answered."""
    request = LocalContext.request.get(None)
    visit = getattr(request, "session_hash", None)
    guests.files.setdefault(str(path), set()).update([visit] if visit else [])


class Leaving:
    """ASGI middleware that sees pages come and go, and looks after what is left behind for as long as the app is served."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            looking = asyncio.create_task(self.look(scope["app"]))
            try:
                await self.app(scope, receive, send)
            finally:
                looking.cancel()
        elif scope["type"] == "http" and "/heartbeat/" in scope["path"]:
            visit = scope["path"].rsplit("/", 1)[1]
            guests.come(visit)
            try:
                self.welcome(scope["app"], visit)
                await self.app(scope, receive, send)
            finally:
                guests.go(visit)
        else:
            await self.app(scope, receive, send)

    @staticmethod
    def welcome(app, visit: str) -> None:
        """A visit that comes back is not over, though Gradio has marked it so."""
        if visit in app.state_holder.session_data:
            app.state_holder.session_data[visit].is_closed = False

    @staticmethod
    async def look(app) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await asyncio.to_thread(guests.forget, app)
            except Exception:  # a look that failed must not be the last: from then on nothing would go
                logging.getLogger(__name__).exception("what visitors left could not be looked after this time")


SERVED = {"middleware": [Middleware(Leaving), Middleware(toasts.Saying)]}  # for `app_kwargs` of launch
