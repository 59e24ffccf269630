"""How live the training lab is, end to end in Chromium: changes a second, how long each takes, and how long Stop takes.

    python benchmarks/lab_latency.py [--method Rotation] [--watch 15] [--stops 5]

Starts the app on a free port, opens the lab as a visitor does, presses Start, and counts how often the step that is shown changes
and how many questions of the page are unanswered at once (more than one: a backlog). Then it presses Stop, several runs in turn,
and measures until “Stopped” stands on the page, and until the weights can be had. Prints all of it with the machine's load: the
page and the training share the processors with whatever else runs.
"""

import argparse
import json
import os
import statistics

from playwright.sync_api import Page
from served import browsed, served

# The time of every change of the step that is shown; and how long each question to the server takes, told by its own clock.
WATCH = """
() => {
  window.shown = [];
  window.asked = [];
  window.open_now = 0;
  window.most_open = 0;
  const step = () => document.querySelector('#lab-status [data-step]')?.dataset.step;
  let last = step();
  new MutationObserver(() => {
    if (step() !== last) { last = step(); window.shown.push([performance.now(), Number(last)]); }
  }).observe(document.querySelector('#lab-status'), {childList: true, subtree: true, attributes: true});
  const before = window.fetch;
  window.fetch = async (...all) => {
    if (!String(all[0]?.url ?? all[0]).includes('/run/')) return before(...all);
    const began = performance.now();
    window.most_open = Math.max(window.most_open, ++window.open_now);
    try { return await before(...all); } finally { window.open_now--; window.asked.push(performance.now() - began); }
  };
}
"""
# Milliseconds from the click on Stop to the word, and to weights that can be had.
STOP = """
() => new Promise((done) => {
  const began = performance.now(), found = {};
  const check = () => {
    const now = performance.now() - began;
    if (!found.stopped && document.querySelector('#lab-status [data-state=stopped]')) found.stopped = now;
    if (found.stopped && !document.querySelector('#lab-download').disabled) { found.weights = now; done(found); }
    else if (now > 60000) done(found);
    else requestAnimationFrame(check);
  };
  document.querySelector('#lab-stop').click();
  check();
})
"""


def start(page: Page) -> None:
    page.click("#lab-start")
    page.wait_for_selector("#lab-status [data-state=running]", timeout=60_000)
    page.wait_for_function("document.querySelector('#lab-panels').innerText.includes('After step')", timeout=60_000)


def watched(page: Page, seconds: float) -> dict:
    """What came to the page of a run, over so many seconds."""
    page.evaluate(WATCH)
    page.wait_for_timeout(1000 * seconds)
    shown, asked = page.evaluate("window.shown"), sorted(page.evaluate("window.asked"))
    gaps = [later - earlier for (earlier, _), (later, _) in zip(shown, shown[1:])]
    return {"changes_per_second": len(shown) / seconds, "longest_gap_ms": max(gaps, default=None), "answers": len(asked),
            "answer_ms_p50": statistics.median(asked), "answer_ms_p95": asked[int(0.95 * (len(asked) - 1))],
            "most_unanswered_at_once": page.evaluate("window.most_open")}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="Rotation", help="the title of a method")
    parser.add_argument("--watch", type=float, default=15, help="seconds that a run is looked at")
    parser.add_argument("--stops", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with served() as (_, url), browsed() as page:
        page.goto(url)
        page.get_by_role("tab", name="Training lab").click()
        page.wait_for_selector("#lab-panels img")
        if options.method != "Rotation":
            page.click("#lab-method input")
            page.get_by_role("option", name=options.method, exact=True).click()
        start(page)
        told = {"method": options.method, **watched(page, options.watch)}
        stops = [page.evaluate(STOP)]
        for _ in range(options.stops - 1):
            start(page)
            page.wait_for_timeout(1500)
            stops.append(page.evaluate(STOP))
    for name in ("stopped", "weights"):
        times = sorted(stop[name] for stop in stops if name in stop)
        told |= {f"{name}_ms_p50": statistics.median(times), f"{name}_ms_max": times[-1], f"{name}_count": len(times)}
    told |= {"processors": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]}
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in told.items()}, indent=2))


if __name__ == "__main__":
    main()
