"""A lecture, and large type, in Chromium."""

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
    assert wall.inner_text(".lecture-foot [role=status]") == "1 / 2 · Learned"
    for hidden in ("#side", "header", "#rotation-angle", "#rotation-seed", "#tab-mae-button"):
        assert not wall.locator(hidden).is_visible()
    assert wall.locator("#rotation-about .method-title").is_visible()
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
