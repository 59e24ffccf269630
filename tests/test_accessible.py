"""The page for those who hear it, or go through it by keys: what axe-core finds, the order of Tab, and that focus is seen."""

import pytest
from pages import begin, open_tab

from ssl_demo.pretext import all_tasks

# What Gradio itself draws and offers no way to change: a rule, and what the finding's element is.
GRADIOS: list[tuple[str, str]] = []
ROOMS = {"overview": ".method img", "transfer": "#transfer-story .map .own image", "teach": "#teach-story .step",
         "lab": "#lab-panels img"}  # fmt: skip
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e), story = e.closest('.story-box, .story');
  const part = e.closest('#side') ? 'side' : e.matches('#rooms > .tab-wrapper button') ? 'rooms'
    : e.matches('#tasks > .tab-wrapper button') ? 'tabs' : story ? 'story' : e.closest('.controls') ? 'controls' : '';
  return {part, seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, what: e.outerHTML.slice(0, 120)};
}"""


@pytest.fixture(scope="module")
def visit(visit):
    pytest.importorskip("axe_playwright_python")
    begin(visit, "rotation")
    visit.emulate_media(reduced_motion="reduce")
    yield visit
    visit.emulate_media(reduced_motion="null")


def found(page, where):
    """What axe-core finds on the page as it is, but for what Gradio draws."""
    from axe_playwright_python.sync_playwright import Axe

    answer = Axe().run(page, options={"resultTypes": ["violations"]}).response
    assert answer["passes"], "axe has looked"
    return [f"{where}: {violation['id']}: {node['html'][:160]} {[check['message'] for check in node['any'] + node['all']][:1]}"
            for violation in answer["violations"] for node in violation["nodes"]
            if not any(violation["id"] == rule and part in node["html"] for rule, part in GRADIOS)]


def both(page, where):
    """Light on a laptop, dark on a phone."""
    page.evaluate("document.body.classList.remove('dark')")
    light = found(page, f"{where}, light")
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("document.body.classList.add('dark')")
    dark = found(page, f"{where}, dark, phone")
    page.evaluate("document.body.classList.remove('dark')")
    page.set_viewport_size({"width": 1440, "height": 900})
    return light + dark


def test_axe_finds_nothing_of_ours_in_any_room(visit):
    findings = []
    for task in ("mae", "rotation", "moco"):
        open_tab(visit, task)
        findings += both(visit, task)
    for room, shows in ROOMS.items():
        visit.click(f"#room-{room}-button")
        visit.wait_for_selector(shows, timeout=60_000, state="attached")
        findings += both(visit, room)
    assert not findings, "\n".join(findings)


def test_keys_reach_the_side_rooms_controls_and_story_in_this_order_and_focus_is_seen(visit):
    open_tab(visit, "mae")
    visit.click("header h1")  # where Tab begins
    met = []
    for _ in range(90):
        visit.keyboard.press("Tab")
        met.append(visit.evaluate(FOCUSED))
        if met[-1]["what"].startswith("<body"):
            break
    parts = [one["part"] for one in met if one["part"]]
    order = list(dict.fromkeys(parts))
    assert order == ["side", "rooms", "tabs", "controls", "story"] and parts == sorted(parts, key=order.index), parts
    assert parts.count("rooms") == 5 and parts.count("tabs") == len(all_tasks())
    assert not [one["what"] for one in met[:-1] if not one["seen"]]


def test_who_wants_no_motion_gets_none(visit):
    moving = visit.evaluate("""() => [...document.querySelectorAll('*')].filter(e => {
      const s = getComputedStyle(e);
      return s.animationName !== 'none' || (s.transitionProperty !== 'none' && parseFloat(s.transitionDuration) > 0);
    }).map(e => e.outerHTML.slice(0, 100))""")
    assert moving == []
