"""The rooms beside the methods, in Chromium."""

from pages import set_slider, upload

from ssl_demo import shipped_features


def wait_for_text(page, selector, text):
    page.wait_for_function("([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
                           arg=[selector, text])


def test_transfer_answers_live_and_places_the_visitors_photo(page, files):
    page.get_by_role("tab", name="Transfer", exact=True).click()
    page.wait_for_selector("#transfer-story .map .own image", timeout=60_000)
    names = shipped_features.available()
    for part in (".step-accuracy", ".step-votes"):
        shown = page.eval_on_selector_all(f"{part} [data-encoder]", "all => all.map(e => e.dataset.encoder)")
        assert sorted(shown) == sorted(names)
    page.click(".step-votes [data-encoder=pixels]")
    wait_for_text(page, ".step-features", "Bare pixels")
    assert page.input_value("#transfer-encoder input") == "Bare pixels"
    set_slider(page, "#transfer-labels", 2)
    wait_for_text(page, ".step-accuracy", "after 20 labels")
    place = "[...document.querySelector('#transfer-story .own rect').attributes].map(a => a.value).join()"
    before = page.evaluate(place)
    upload(page, files / "sideways.jpg")
    page.click("#transfer-map label:has-text('PCA')")  # while the photo is on its way: neither may be lost
    page.wait_for_function(f"before => {place} !== before", arg=before)
    wait_for_text(page, ".step-map", "PCA:")
    assert page.eval_on_selector(".story.transfer", "e => e.getBoundingClientRect().bottom") <= 900, "in one view of a laptop"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.errors == [] and page.outside == []


def test_measured_charts_are_drawn_when_they_are_opened(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("tab", name="Transfer", exact=True).click()
    if not page.is_visible("#measured-gap"):  # another test on this page may have opened it
        page.click("#measured button.label-wrap")
    page.wait_for_selector("#measured-gap .js-plotly-plot .main-svg", timeout=60_000)
    assert page.locator("#measured-bars-knn .bars .point").count() >= 3
    assert "transfer_table.py" in page.inner_text("#measured") and page.errors == [] and page.outside == []
    page.click("#measured button.label-wrap")
