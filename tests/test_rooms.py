"""The rooms beside the methods, in Chromium."""

import pytest
from test_page import chromium, open_page, set_slider, upload  # noqa: F401

from ssl_demo import shipped_features


@pytest.fixture(scope="module")
def visit(chromium, url):  # noqa: F811
    yield from open_page(chromium, url, 1440, 900)


def wait_for_text(page, selector, text):
    page.wait_for_function("([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
                           arg=[selector, text], timeout=30_000)


def test_transfer_answers_live_and_places_the_visitors_photo(visit, files):
    visit.get_by_role("tab", name="Transfer", exact=True).click()
    visit.wait_for_selector("#transfer-story .map .own image", timeout=60_000)
    names = shipped_features.available()
    for part in (".step-accuracy", ".step-votes"):
        shown = visit.eval_on_selector_all(f"{part} [data-encoder]", "all => all.map(e => e.dataset.encoder)")
        assert sorted(shown) == sorted(names)
    visit.click(".step-votes [data-encoder=pixels]")
    wait_for_text(visit, ".step-features", "Bare pixels")
    assert visit.input_value("#transfer-encoder input") == "Bare pixels"
    set_slider(visit, "#transfer-labels", 2)
    wait_for_text(visit, ".step-accuracy", "after 20 labels")
    place = "[...document.querySelector('#transfer-story .own rect').attributes].map(a => a.value).join()"
    before = visit.evaluate(place)
    upload(visit, files / "sideways.jpg")
    visit.click("#transfer-map label:has-text('PCA')")  # while the photo is on its way: neither may be lost
    visit.wait_for_function(f"before => {place} !== before", arg=before, timeout=30_000)
    wait_for_text(visit, ".step-map", "PCA:")
    assert visit.eval_on_selector(".story.transfer", "e => e.getBoundingClientRect().bottom") <= 900, "in one view of a laptop"
    visit.set_viewport_size({"width": 390, "height": 844})
    assert visit.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.errors == [] and visit.outside == []


def test_measured_charts_are_drawn_when_they_are_opened(visit):
    visit.set_viewport_size({"width": 1440, "height": 900})
    visit.get_by_role("tab", name="Transfer", exact=True).click()
    visit.click("#measured button.label-wrap")
    visit.wait_for_selector("#measured-gap .js-plotly-plot .main-svg", timeout=60_000)
    assert visit.locator("#measured-bars-knn .bars .point").count() >= 3
    assert "transfer_table.py" in visit.inner_text("#measured") and visit.errors == [] and visit.outside == []
