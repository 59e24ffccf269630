"""How fast a lecture moves, end to end in Chromium: from an arrow key to the next state's story on the page, and what it costs.

    python benchmarks/lecture_latency.py [--lecture methods] [--pause 3] [--rounds 1]

Starts the app, opens the lecture, presses the arrow key through its methods and prints one JSON object: for each move between
states of methods the milliseconds until its pictures are drawn, how many runs of networks and how many drawn stories it took,
and the processor time of the server. Needs Chromium and Playwright (requirements-dev.txt). Run it on an idle machine.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl

sys.path.insert(0, str(Path(__file__).parent.parent))
from served import browsed  # noqa: E402

import app  # noqa: E402
from ssl_demo import inference  # noqa: E402
from ssl_demo.examples import EXAMPLES  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402
from ssl_demo.ui import lectures, links, task_tab  # noqa: E402

SHOWN = """async (link) => {
  const here = () => [...document.querySelectorAll('.story')].find((one) => one.offsetParent && one.dataset.link === link);
  for (const began = performance.now(); !here() && performance.now() - began < 30000;) await new Promise(requestAnimationFrame);
  await Promise.all([...here().querySelectorAll('img')].map((image) => image.decode()));
  return performance.now();
}"""
PRESS = "() => document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})) && performance.now()"


def counted(owner, name: str, counts: dict) -> None:
    """From now on, every call of a function is counted."""
    plain = getattr(owner, name)

    def call(*args, **more):
        counts[name] = counts.get(name, 0) + 1
        return plain(*args, **more)

    setattr(owner, name, call)


def written(link: str) -> str:
    """A state's link as its story carries it: without what stands at its beginning anyway."""
    place = links.read(dict(parse_qsl(link[1:])))
    photo = next(example.image for example in EXAMPLES if place.photo in ("", example.name))
    return links.query(all_tasks()[place.task], photo, place.seed, place.network, place.controls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lecture", default="methods")
    parser.add_argument("--pause", type=float, default=3, help="seconds between two moves (default: 3)")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    states = lectures.open_lecture(asked.lecture)
    counts = {}
    counted(inference.Runner, "run", counts)
    counted(task_tab, "story", counts)
    _, url, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    report = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "moves": []}
    with browsed() as page:
        for _ in range(asked.rounds):
            page.goto(f"{url}?lecture={asked.lecture}")
            page.wait_for_selector(".lecture-foot")
            for state in states[1:]:
                time.sleep(asked.pause)
                counts.clear()
                name = dict(parse_qsl(state.link[1:])).get("task")
                began, used = page.evaluate(PRESS), time.process_time()
                if not name or all_tasks()[name].card.input == "video":
                    continue
                shown = page.evaluate(SHOWN, written(state.link))
                time.sleep(asked.pause)
                report["moves"].append({"task": name, "ms": round(shown - began), "runs": counts.get("run", 0),
                                        "stories": counts.get("story", 0),
                                        "server_cpu_ms": round(1000 * (time.process_time() - used))})  # fmt: skip
    app.demo.close()
    report |= {f"{name}_p50": statistics.median(move[name] for move in report["moves"])
               for name in ("ms", "runs", "stories", "server_cpu_ms")}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
