"""A lecture, and large type, in Chromium."""

import threading

import pytest

TURNED, UNTRAINED = (f"?task=rotation&photo=chelsea{network}&angle=90" for network in ("", "&network=untrained"))


@pytest.fixture
def wall(page):
    page.set_viewport_size({"width": 1920, "height": 1080})
    return page


def shows(page, link):
    page.wait_for_function("link => [...document.querySelectorAll('.story')].some("
                           "story => story.offsetParent && story.dataset.link === link)", arg=link)


def test_arrow_keys_move_through_a_lecture_and_escape_leaves_it(wall, url):
    from ssl_demo.ui import lectures

    lecture = lectures.pack(lectures.pasted(f"Learned {TURNED}\nNot yet {UNTRAINED}"))
    wall.goto(f"{url}?lecture={lecture}")
    shows(wall, TURNED)
    wall.wait_for_selector("#rotation-about .method-title")  # the tab opens when its answer is there
    assert wall.inner_text(".lecture-foot [role=status]") == "1 / 2 · Learned"
    for hidden in ("#side", "header", "#rotation-angle", "#rotation-seed", "#tab-mae-button"):
        assert not wall.locator(hidden).is_visible()
    wall.evaluate("window.isSamePage = true")
    wall.keyboard.press("ArrowRight")
    shows(wall, UNTRAINED)
    assert wall.url.endswith("&at=2") and wall.inner_text(".lecture-foot [role=status]") == "2 / 2 · Not yet"
    wall.go_back()
    shows(wall, TURNED)
    wall.keyboard.press("PageDown")
    shows(wall, UNTRAINED)
    wall.keyboard.press("Escape")
    assert wall.locator("#rotation-seed").is_visible() and wall.locator("#side").is_visible()
    assert wall.url.endswith(UNTRAINED) and wall.evaluate("window.isSamePage") and wall.errors == []


def test_large_type_is_large_and_lasts_for_the_visit(wall):
    shows_large = "selector => parseFloat(getComputedStyle(document.querySelector(selector)).fontSize)"
    wall.click("#large-type")
    for is_reloaded in (False, True):
        if is_reloaded:
            wall.reload()
            wall.wait_for_selector("#rotation-story figcaption")
        assert wall.evaluate(shows_large, "#rotation-story .panel h4") >= 20
        assert wall.evaluate(shows_large, "#rotation-story figcaption") >= 18
    wall.click("#large-type")
    assert wall.evaluate(shows_large, "#rotation-story .panel h4") < 20


def test_a_move_computes_one_run_and_draws_one_story(wall, url, monkeypatch):
    from ssl_demo import inference
    from ssl_demo.ui import lectures, task_tab

    links = [TURNED, "?task=mae&photo=coffee&seed=7", UNTRAINED]  # another tab, with another seed; and back
    wall.goto(f"{url}?lecture={lectures.pack(lectures.pasted(chr(10).join(links)))}")
    shows(wall, links[0])
    wall.wait_for_timeout(1200)
    ran, drawn = [], []
    for kept, owner, name in ((ran, inference.Runner, "run"), (drawn, task_tab, "story")):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, _kept=kept, _plain=plain, **more: _kept.append(1) or _plain(*args, **more))
    for link in links[1:]:
        wall.keyboard.press("ArrowRight")
        shows(wall, link)
        wall.wait_for_timeout(1200)  # whatever else asks has asked by then
    assert len(ran) == len(drawn) == 2
    wall.keyboard.press("Escape")
    wall.click("#tab-mae-button")  # a visitor's own way back is answered
    shows(wall, links[1].replace("coffee", "chelsea"))
    assert len(drawn) == 3 and wall.errors == []


def test_a_state_that_comes_late_does_not_take_a_person_from_the_tab_they_opened(wall, url, monkeypatch):
    from ssl_demo.ui import lectures
    from ssl_demo.ui.task_tab import TaskTab

    wall.goto(f"{url}?lecture={lectures.pack(lectures.pasted(f'Learned {TURNED}{chr(10)}Not yet {UNTRAINED}'))}")
    shows(wall, TURNED)
    bring, gate, came = TaskTab.bring, threading.Event(), []

    def late(self, *values):
        came.append(gate.wait(60))
        return bring(self, *values)

    monkeypatch.setattr(TaskTab, "bring", late)
    wall.keyboard.press("ArrowRight")
    wall.keyboard.press("Escape")
    wall.click("#room-lab-button")
    goes = wall.input_value("#goes :is(input, textarea)")
    gate.set()
    wall.wait_for_function("goes => document.querySelector('#goes :is(input, textarea)').value !== goes", arg=goes)
    wall.wait_for_timeout(300)  # as long as a tab would take to open
    assert came == [True] and wall.evaluate("window.place.now()") == "lab" and wall.locator("#lab-start").is_visible()
    assert wall.errors == []
