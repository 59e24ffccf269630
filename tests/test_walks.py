"""The walks: texts that a teacher may edit, held against real runs of their tasks; and the strip that shows them."""

import html
import json
import re
from dataclasses import replace

import pytest
from pages import begin, open_tab, set_slider

from ssl_demo import inference, walk
from ssl_demo.checkpoints import bundled
from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import all_tasks, parse_controls
from ssl_demo.ui.walk_strip import strip_html

TASKS = list(all_tasks())


@pytest.fixture(scope="module", params=TASKS)
def told(request):
    """A task, its walk, and a run with all controls at their defaults."""
    settings = {"frames": 6, "frame": 3} if all_tasks()[request.param].card.input == "video" else {}  # a clip costs a second
    return all_tasks()[request.param], walk.read(request.param), inference.load(request.param).run(EXAMPLES[0].image, **settings)


def test_a_walk_has_four_to_six_steps_in_short_sentences(told):
    task, walked, result = told
    steps = walk.told(walked, task, result)["steps"]
    assert 4 <= len(steps) <= 6 and all(step["title"] and step["panels"] for step in steps)
    assert len({step["title"] for step in steps}) == len(steps)
    for step in steps:
        assert len(step["text"]) <= 190 and 1 <= len(re.findall(r"[.?!](?=\s|$)", step["text"])) <= 4, step["text"]
    assert sum(bool(re.search(r"\d", step["text"])) for step in steps) >= 2, "a walk tells the numbers of this run"


def test_every_panel_that_is_named_is_on_the_page_and_all_steps_of_the_story_are_met(told):
    task, walked, result = told
    stages = {panel.name: panel.stage for panel in result.panels}
    named = [name for part in (*walked.steps, *walked.symbols, walked.cheat) for name in part.shows]
    assert not set(named) - set(stages)
    assert {stages[name] for step in walked.steps for name in step.shows} == {"photo", "sees", "answers", "judged"}


def test_every_number_that_is_told_is_of_the_run(told):
    task, walked, result = told
    filled = walk.told(walked, task, result)
    texts = [part["text"] for part in (*filled["steps"], *filled["symbols"], filled["cheat"])]
    assert not [text for text in texts if "{" in text or "}" in text]
    labels = {number.label for number in result.figures.values() if number.text}
    assert {label for part in (*filled["steps"], *filled["symbols"]) for label in part["figures"]} <= labels
    other = {name: replace(number, text="¤", help="¤", value=7) for name, number in result.figures.items()}
    changed = walk.told(walked, task, replace(result, figures=other))
    assert "¤" in json.dumps(changed, ensure_ascii=False), "figures come from the run"


def test_symbols_stand_in_the_equation(told):
    task, walked, _ = told
    equation = walk.equation(task)
    assert equation and len(walked.symbols) >= 4
    assert [one.symbol for one in walked.symbols if one.symbol not in equation] == []
    assert len({one.symbol for one in walked.symbols}) == len(walked.symbols) and all(one.shows for one in walked.symbols)


def test_a_cheat_turns_controls_and_turns_them_back_or_says_why_not(told):
    task, walked, result = told
    assert len(walked.cheat.text) > 40
    on, off = (walk.settings(walked, task, cheating) for cheating in (True, False))
    assert on.keys() == off.keys() and all(on[name] != off[name] for name in on)
    assert not walk.is_open(walked, task, parse_controls(task, {}))
    if not on:
        assert walked.cheat.train, "where no control opens the shortcut, a training does"
        assert "Could it cheat?" in strip_html(task, walked)
        return
    before = dict(parse_controls(task, {}), **{next(iter(on)): on[next(iter(on))]})  # one stood there by a visitor's choice
    assert walk.settings(walked, task, False, before) == {name: before[name] for name in on}
    assert walk.is_open(walked, task, parse_controls(task, on)) and walked.cheat.measured
    assert not walk.is_open(walked, task, parse_controls(task, on) | {next(iter(on)): next(iter(off.values()))})


def test_while_it_cheats_no_step_says_that_the_guards_are_on(told):
    task, walked, result = told
    changed = [step for step in walked.steps if step.cheating]
    if not changed:
        assert not walked.cheat.controls or task.card.name not in ("jigsaw", "cpc", "relative_patch", "simclr", "moco", "dino")
        return
    controls = {**result.controls, **walk.settings(walked, task, True)}
    cheating = inference.load(task.card.name).run(EXAMPLES[0].image, **controls)
    for step, now in zip(walked.steps, walk.told(walked, task, cheating)["steps"]):
        assert now["text"] == walk.fill(step.cheating or step.text, cheating)[0] and len(now["text"]) <= 190
    assert [step["text"] for step in walk.told(walked, task, result)["steps"]] == [walk.fill(step.text, result)[0]
                                                                                   for step in walked.steps]


def test_settings_of_a_training_are_knobs_of_the_lab(told):
    task, walked, _ = told
    knobs = {knob.name for knob in task.knobs}
    assert set(walked.cheat.train or {}) <= knobs and bool(walked.cheat.train) == bool(walked.cheat.trained)


def test_what_cheating_does_is_told_as_it_was_measured(told):
    task, walked, _ = told
    table = json.loads(walk.SHORTCUTS.read_text())
    entry = table["tasks"][task.card.name]
    assert "benchmarks/shortcuts.py" in table["command"] and "heldout" not in table["command"]
    if entry["sha256"] != next(iter(bundled(task.card.name).values()))["sha256"]:
        pytest.skip(f"{task.card.name} was trained anew since: the page tells nothing until benchmarks/shortcuts.py runs again")
    sentences = walk.figures_of(task, walked)
    assert len(sentences) == bool(walked.cheat.measured) + bool(walked.cheat.trained)
    if walked.cheat.measured:
        assert f"{entry['photos']} " in sentences[0]


def test_figures_of_other_weights_or_settings_are_not_told(told, monkeypatch, tmp_path):
    task, walked, _ = told
    if not walked.cheat.measured:
        pytest.skip("nothing is measured of the bundled network")
    table = json.loads(walk.SHORTCUTS.read_text())
    for key, value in (("sha256", "other"), ("controls", {"other": 1})):
        entry = {**table["tasks"][task.card.name], key: value}
        (tmp_path / "shortcuts.json").write_text(json.dumps({"tasks": {task.card.name: entry}}))
        monkeypatch.setattr(walk, "SHORTCUTS", tmp_path / "shortcuts.json")
        assert len(walk.figures_of(task, walked)) == bool(walked.cheat.trained)


@pytest.mark.parametrize("text, said", [
    ("steps: [", "is no walk"), ("steps: []\nsymbols: []", "'cheat'"),
    ("steps: [{title: a, text: b, colour: red}]\nsymbols: []\ncheat: {text: c}", "no “colour”"),
])  # fmt: skip
def test_a_file_that_is_no_walk_is_named(text, said, tmp_path, monkeypatch):
    (tmp_path / "bad.yaml").write_text(text)
    monkeypatch.setattr(walk, "WALKS", tmp_path)
    with pytest.raises(ValueError, match="bad.yaml") as error:
        walk.read.__wrapped__("bad")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_task_without_a_file_has_no_walk():
    assert walk.read("none-such") is None


# The strip, in Chromium


def opacity(page, selector):
    page.wait_for_timeout(400)  # it takes a moment to dim
    return float(page.eval_on_selector(selector, "one => getComputedStyle(one).opacity"))


def outlined(page, task):
    return set(page.eval_on_selector_all(f"#{task}-story .panel", "all => all.filter(one => getComputedStyle(one).outlineStyle"
                                         " === 'solid').map(one => one.dataset.panel)"))


def test_stepping_lights_part_after_part_and_goes_on_with_a_new_answer(mae_page):
    page, strip, steps, at = mae_page, "#mae-walk", walk.read("mae").steps, mae_page.locator("#mae-story .story").bounding_box()
    page.click(f"{strip} [data-door=steps]")
    assert page.inner_text(f"{strip} .walk-text").startswith(f"1 of {len(steps)} · {steps[0].title}")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(f"{strip} .walk-text").startswith(f"2 of {len(steps)} · {steps[1].title}")
    assert "36 visible" in page.inner_text(f"{strip} .walk-text") and outlined(page, "mae") == {"visible"}
    assert opacity(page, "#mae-story [data-panel=visible]") == 1 and opacity(page, "#mae-story [data-panel=error]") < 0.5
    assert opacity(page, "#mae-story .step-sees h3") == 1 and opacity(page, "#mae-story .step-judged h3") < 0.5
    assert page.locator("#mae-story .story").bounding_box() == at, "nothing moves"
    bottoms = page.eval_on_selector_all("#mae-story img", "all => all.map(one => one.getBoundingClientRect().bottom)")
    assert max(bottoms) <= 900
    set_slider(page, "#mae-mask_ratio", 50)
    page.wait_for_function("document.querySelector('#mae-walk .walk-text').innerText.includes('72 visible')")
    assert outlined(page, "mae") == {"visible"}
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(f"{strip} .walk-text").startswith("1 of")
    page.keyboard.press("Escape")
    assert outlined(page, "mae") == set() and opacity(page, "#mae-story [data-panel=error]") == 1
    assert page.evaluate("document.activeElement.dataset.door") == "steps" and page.errors == []


def test_a_symbol_shows_what_it_stands_for_and_cheating_can_be_switched(visit):
    begin(page := visit, "jigsaw")
    walked = walk.read("jigsaw")
    page.click("#jigsaw-walk [data-door=loss]")
    symbols = page.locator("#tab-jigsaw .symbol")
    assert page.locator("#tab-jigsaw .walk-loss .katex-display").is_visible()
    assert symbols.count() == len(walked.symbols) and symbols.first.locator(".katex").count() == 1
    for number in (1, 3):
        symbols.nth(number).hover()
        assert outlined(page, "jigsaw") == set(walked.symbols[number].shows)
        said = page.inner_text("#jigsaw-walk .walk-text").lower()
        assert walked.symbols[number].says.split("{")[0].strip().lower() in said
    page.click("#jigsaw-walk [data-door=cheat]")
    page.wait_for_function("document.querySelector('#jigsaw-walk [data-door=cheat]').innerText === 'Stop cheating'")
    assert not page.is_checked("#jigsaw-gap input") and not page.is_checked("#jigsaw-normalise input")
    assert "The guard is off." in page.inner_text("#jigsaw-walk .walk-text")
    page.click("#jigsaw-walk [data-door=cheat]")
    page.wait_for_function("document.querySelector('#jigsaw-walk [data-door=cheat]').innerText === 'Let it cheat'")
    assert page.is_checked("#jigsaw-gap input") and page.is_checked("#jigsaw-normalise input")
    page.uncheck("#jigsaw-gap input")  # one of the two: not yet cheating, and the visitor's own choice
    page.wait_for_function("document.querySelector('#jigsaw-story .story').dataset.link.includes('gap=False')")
    for name in ("Stop cheating", "Let it cheat"):
        page.click("#jigsaw-walk [data-door=cheat]")
        page.wait_for_function("name => document.querySelector('#jigsaw-walk [data-door=cheat]').innerText === name", arg=name)
    assert not page.is_checked("#jigsaw-gap input") and page.is_checked("#jigsaw-normalise input") and page.errors == []


def test_on_a_phone_what_a_step_speaks_of_comes_into_view(phone):
    open_tab(phone, "mae")
    phone.emulate_media(reduced_motion="reduce")
    phone.click("#mae-walk [data-door=steps]")
    for _ in range(len(walk.read("mae").steps) - 1):
        phone.click("#mae-walk .walk-next")
    strip = phone.locator("#tab-mae .walk-strip").bounding_box()
    panel = phone.locator("#mae-story [data-panel=error] img").bounding_box()
    assert strip["y"] + strip["height"] <= 845 and 0 <= panel["y"] < strip["y"] - 100
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.click("#mae-walk .walk-close")


def test_told_texts_are_text(monkeypatch):
    """What a walk tells is escaped on its way to the page."""
    from ssl_demo.ui.walk_strip import WalkStrip

    strip = WalkStrip.__new__(WalkStrip)
    strip.task, strip.walk = all_tasks()[TASKS[0]], walk.read(TASKS[0])
    monkeypatch.setattr(walk, "told", lambda *_: {"steps": [{"text": "\"><script>"}]})
    assert "<script>" not in strip.told_html(None) and "&lt;script&gt;" in html.escape("<script>")
