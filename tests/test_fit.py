"""Whether what is shown fits its screen, in Chromium; and that a mistake and a move reach the page as they should."""

import threading
from types import SimpleNamespace

import gradio as gr
import pytest
from pages import TASKS, begin, open_page, open_tab, upload
from PIL import Image

from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import all_tasks
from ssl_demo.teach import Lesson
from ssl_demo.ui.just_answered import JustAnswered
from ssl_demo.ui.overview_room import OverviewRoom
from ssl_demo.ui.task_tab import TaskTab
from ssl_demo.ui.teach_room import CANCELLED, TeachRoom

LOWEST = """task => Math.max(...[...document.querySelectorAll(`#${task}-story :is(.panel, .link, .figures, .shortcut)`)]
    .filter(part => part.offsetParent).map(part => part.getBoundingClientRect().bottom + scrollY))"""
SIZES = """([task, part]) => Math.min(...[...document.querySelectorAll(`#${task}-story ${part}`)]
    .filter(one => one.offsetParent && one.textContent.trim()).map(one => parseFloat(getComputedStyle(one).fontSize)))"""


OWN = "task => !document.querySelector(`#${task}-story .story`).dataset.link.includes('photo=')"
HIT = """all => all.map(one => { const box = one.getBoundingClientRect();
    return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === one })"""
OUTSIDE = """all => all.filter(one => one.getClientRects().length).filter(one => { const box = one.getBBox();
    return box.x < 0 || box.x + box.width > one.ownerSVGElement.viewBox.baseVal.width + 1 }).map(one => one.textContent)"""
CUT = """all => all.filter(one => one.offsetParent && (one.scrollWidth > one.clientWidth + 1
    || one.scrollHeight > one.clientHeight + 1)).map(one => one.innerText)"""


def ends(page, tasks):
    """Where the story of each tab ends, in pixels from the page's top."""
    lowest = {}
    for task in tasks:
        open_tab(page, task)
        page.wait_for_timeout(400)  # pictures take their places
        lowest[task] = page.evaluate(LOWEST, task)
    return lowest


@pytest.fixture
def wall(chromium, url):
    yield from open_page(chromium, f"{url}?type=large", 1920, 1080)


@pytest.mark.slow
def test_every_story_ends_on_a_laptops_screen(page):
    assert {task: end for task, end in ends(page, TASKS).items() if end > 900} == {}


def test_with_large_type_stories_end_on_a_projectors_screen_and_are_readable(wall):
    tasks = ("mae", "moco", "simclr", "dino")
    assert {task: end for task, end in ends(wall, tasks).items() if end > 1080} == {}
    for task in tasks:
        assert wall.evaluate(SIZES, [task, ".panel h4"]) >= 20 and wall.evaluate(SIZES, [task, "figcaption"]) >= 18
    assert wall.eval_on_selector_all(".chart .tick", OUTSIDE) == []


@pytest.mark.slow
def test_with_a_photo_of_ones_own_stories_end_where_they_end_with_an_example(page, files):
    upload(page, files / "plain.png")
    page.wait_for_function(OWN, arg="rotation")
    lowest = {}
    for task in TASKS:
        open_tab(page, task)
        page.wait_for_function(OWN, arg=task)
        lowest |= ends(page, [task])
        assert page.eval_on_selector_all(f"#tab-{task} .info-text", CUT) == []
    assert {task: end for task, end in lowest.items() if end > 900} == {}


def told_ends(page, tasks):
    """Where the story of each tab ends once a question has been answered; nothing moves above it meanwhile."""
    lowest = {}
    for task in tasks:
        open_tab(page, task)
        above = page.locator(f"#{task}-about").bounding_box()
        page.click(f"#{task}-story .guess-start [data-guess]")
        page.click(f"#{task}-story [data-pick] >> nth=0")
        page.wait_for_selector(f"#{task}-story .verdict")
        assert page.locator(f"#{task}-about").bounding_box() == above
        lowest |= ends(page, [task])
        page.click(f"#{task}-story [data-guess=stop]")
        page.wait_for_selector(f"#{task}-story .verdict", state="detached")
    return lowest


@pytest.mark.slow
def test_a_told_answer_ends_on_its_screen(fresh_page, wall):
    for screen, fold in ((fresh_page, 900), (wall, 1080)):
        found = told_ends(screen, ("rotation", "relative_patch", "jigsaw", "colorization"))
        assert {task: end for task, end in found.items() if end > fold} == {}


def test_the_strip_leaves_the_controls_free(page):
    for task in ("rotation", "mae"):
        begin(page, task)
        for door in ("steps", "loss", "cheat"):
            page.click(f"#{task}-walk [data-door={door}]")
            strip = page.locator(f"#tab-{task} .walk-strip").bounding_box()
            assert strip["y"] + strip["height"] <= page.locator(f"#tab-{task} .controls").bounding_box()["y"] + 1
        page.keyboard.press("Escape")


def test_on_a_phone_the_buttons_of_a_lecture_and_of_the_lab_are_in_reach(phone, url):
    phone.goto(f"{url}?lecture=methods&at=2")
    phone.wait_for_function("document.querySelector('.lecture-foot [role=status]')?.innerText.startsWith('2 / ')")
    assert phone.eval_on_selector_all(".lecture-foot button", HIT) == [True] * 3
    phone.click("[data-move='1']")
    phone.wait_for_function("document.querySelector('.lecture-foot [role=status]').innerText.startsWith('3 / ')")
    phone.click("[data-move='0']")
    phone.click("#room-lab-button")
    phone.wait_for_selector("#lab-start")
    start = phone.locator("#lab-start").bounding_box()
    assert start["x"] >= 0 and start["x"] + start["width"] <= 390
    phone.click("#room-methods-button")


def test_with_large_type_the_small_maps_end_on_a_projectors_screen(wall):
    wall.click("#room-transfer-button")
    wall.wait_for_selector(".every-map img")
    assert wall.eval_on_selector(".story.transfer", "story => story.getBoundingClientRect().bottom + scrollY") <= 1080
    assert wall.evaluate("document.documentElement.scrollWidth") <= 1920


def test_a_mistake_of_an_answer_without_the_queue_is_told_in_a_sentence(page, monkeypatch):
    def refuse(self, *values):
        raise ValueError("This network <b>broke</b>.")

    monkeypatch.setattr(TaskTab, "result", refuse)
    page.click("#rotation-again")
    told = page.wait_for_selector(".told-mistake")
    assert told.inner_text() == "This network <b>broke</b>." and page.locator("#rotation-story .story img").count() > 0
    page.errors.clear()  # the browser logs a refusal, and other tests share the page


def test_what_was_just_answered_is_not_computed_again():
    ran, just = [], JustAnswered(seconds=100)
    gate = threading.Event()

    def answer():
        ran.append(1)
        gate.wait(10)
        return len(ran)

    given = []
    callers = [threading.Thread(target=lambda: given.append(just.once("a", answer))) for _ in range(3)]
    for caller in callers:
        caller.start()
    gate.set()
    for caller in callers:
        caller.join(10)
    assert given == [1, 1, 1] and just.once("b", answer) == 2 and just.once(None, answer) == 3 and just.once(None, answer) == 4
    old = JustAnswered(seconds=0)
    assert old.once("a", answer) == 5 and old.once("a", answer) == 6


def test_a_mistake_is_not_kept():
    just = JustAnswered()

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError):
        just.once("a", fail)
    assert just.once("a", lambda: 1) == 1


def test_a_move_its_tab_and_its_room_run_the_task_once_but_a_visitors_photo_is_never_kept():
    runs = []

    def run(name, weights, photo, seed, controls, company):
        runs.append(seed)
        return SimpleNamespace()

    task = all_tasks()["mae"]
    with gr.Blocks():
        tab = TaskTab(task, run)
    values = [tab.network.value, *(control.default for control in task.controls)]
    example, own = EXAMPLES[0].image, Image.new("RGB", (64, 64), "red")
    for _ in range(3):
        tab.result(example, 0, *values)
    tab.result(example, 1, *values)
    assert runs == [0, 1]
    for _ in range(2):
        tab.result(own, 0, *values)
    assert runs == [0, 1, 0, 0]


def test_teaching_can_be_cancelled_and_a_new_photo_does_not_begin_it_again(monkeypatch):
    with gr.Blocks():
        room = TeachRoom()
    lesson, looked = Lesson(), []
    monkeypatch.setattr(lesson, "ready", lambda: [1, 2])

    def look():
        for done in range(9):
            looked.append(done)
            yield done, 9

    monkeypatch.setattr(lesson, "look", look)
    monkeypatch.setattr("ssl_demo.ui.teach_room.PATIENCE", -1)
    work = room.work(EXAMPLES[0].image, lesson)
    assert "0 of 9" in next(work)[1]
    room.stop(lesson)
    assert [step[1] for step in work] == [CANCELLED] and looked == [0, 1] and not lesson.is_busy
    assert room.answer(EXAMPLES[1].image, lesson)[0] == gr.skip()


def test_the_overview_says_how_far_it_is_where_it_takes_long(monkeypatch):
    monkeypatch.setattr(OverviewRoom, "tell", lambda self, name, *rest: (name, 0.0))
    monkeypatch.setattr("ssl_demo.ui.overview_room.PATIENCE", -1)
    with gr.Blocks():
        room = OverviewRoom(None, gr.State(), gr.State(), EXAMPLES[0].image)
    said = [step[-1] for step in room.answer(SimpleNamespace(session_hash="a"), EXAMPLES[1].image, None, [], room.seen.value)][1:]
    assert "1 of 12" in said[0] and "7 of 12" in said[6] and said[-1] == ""


def test_what_a_page_was_given_is_not_given_again_until_it_shows_something_else():
    just = JustAnswered()
    just.give("a", "one")
    assert just.was_given("a", "one") and not just.was_given("b", "one") and not just.was_given("a", "two")
    just.give("b", "two")
    assert just.was_given("a", "one") and not just.was_given("a", None)
    just.give("a", None)
    assert not just.was_given("a", "one") and just.was_given("b", "two")
