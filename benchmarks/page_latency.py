"""How fast the page answers, end to end in Chromium: from a slider's move to the new answer in the page.

    python benchmarks/page_latency.py [--moves 30]

Starts the app, opens the tab of each task on photos that has a slider, moves its first one, and prints one JSON object with the
median and the 95th percentile in milliseconds for each tab. Needs Chromium and Playwright (requirements-dev.txt). Run it on an
idle machine.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from served import browsed  # noqa: E402

import app  # noqa: E402
from ssl_demo.pretext import all_tasks  # noqa: E402

MOVE = """async ([selector, story, value]) => {
  const told = () => document.querySelector(story).innerHTML;  // not pictures alone: a temperature may change figures only
  const slider = document.querySelector(selector), before = told(), start = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  while (told() === before && performance.now() - start < 10000) await new Promise(requestAnimationFrame);
  await Promise.all([...document.querySelectorAll(story + ' img')].map(i => i.decode().catch(() => {})));
  return performance.now() - start;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=30)
    moves = parser.parse_args().moves
    _, url, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    report = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "moves": moves, "tabs": {}}
    with browsed() as page:
        page.goto(url)
        page.click("#room-methods-button")
        for name, task in all_tasks().items():
            slider = next((control for control in task.controls if control.kind == "slider"), None)
            if slider is None or task.card.input == "video":  # seconds of work, which tell how far they are
                continue
            page.get_by_role("tab", name=task.card.title).click()
            page.wait_for_selector(f"#{name}-story .story img")
            steps = int((slider.maximum - slider.minimum) / slider.step)
            times = []
            for move in range(moves + 3):
                value = slider.minimum + slider.step * ((move * 7 + 1) % steps)
                selector = f"#{name}-{slider.name} input[type=range]"
                times.append(page.evaluate(MOVE, [selector, f"#{name}-story", value]))
                time.sleep(0.1)
            times = times[3:]  # the first moves also warm caches
            report["tabs"][name] = {"slider": slider.name, "ms_p50": round(statistics.median(times)),
                                    "ms_p95": round(statistics.quantiles(times, n=20)[-1])}
    app.demo.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
