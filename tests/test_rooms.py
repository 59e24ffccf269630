"""The rooms beside the methods, in Chromium."""

from pages import set_slider, source, upload, wait_for_change

from ssl_demo import shipped_features


def wait_for_text(page, selector, text):
    page.wait_for_function("([selector, text]) => document.querySelector(selector)?.innerText.includes(text)",
                           arg=[selector, text])


def test_transfer_answers_live_and_places_the_visitors_photo(page, files):
    page.get_by_role("tab", name="Transfer", exact=True).click()
    page.wait_for_selector("#transfer-story .map .own image", timeout=60_000)
    names = shipped_features.available()
    for part in (".step-accuracy", ".step-votes", ".every-map"):
        shown = page.eval_on_selector_all(f"{part} [data-encoder]", "all => all.map(e => e.dataset.encoder)")
        assert sorted(shown) == sorted(names)
    page.click(".step-votes [data-encoder=pixels]")
    wait_for_text(page, ".step-features", "Bare pixels")
    assert page.input_value("#transfer-encoder input") == "Bare pixels"
    page.click(".every-map [data-encoder=mae]")
    wait_for_text(page, ".step-features", "Masked autoencoder")
    assert page.get_attribute(".every-map [data-encoder=mae]", "aria-checked") == "true"
    set_slider(page, "#transfer-labels", 2)
    wait_for_text(page, ".step-accuracy", "after 20 labels")
    place = "[...document.querySelector('#transfer-story .own rect').attributes].map(a => a.value).join()"
    before = page.evaluate(place)
    rings = "[...document.querySelectorAll('.every-map i')].map(ring => ring.style.cssText).join()"
    marked = page.evaluate(rings)
    upload(page, files / "sideways.jpg")
    page.click("#transfer-map label:has-text('PCA')")  # while the photo is on its way: neither may be lost
    page.wait_for_function(f"before => {place} !== before", arg=before)
    wait_for_text(page, ".step-map", "PCA:")
    assert page.evaluate(rings) != marked and page.evaluate(rings).count("left") == len(names)
    assert page.eval_on_selector(".story.transfer", "e => e.getBoundingClientRect().bottom") <= 900, "in one view of a laptop"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.errors == [] and page.outside == []


def test_of_tabs_opened_in_quick_succession_the_last_one_hears_of_a_new_photo(page, files):
    """What is open is read off the tab bars: events that tell of the tabs before it may come late, and then name those."""
    last = page.evaluate("""async () => {
        for (const tab of ['room-overview', 'room-methods', 'tab-dino', 'room-lab', 'room-methods', 'tab-jigsaw', 'room-teach']) {
            document.querySelector(`#${tab}-button`).click();
        }
        await new Promise(requestAnimationFrame);
        const now = [window.place.now()];
        document.querySelector('#room-methods-button').click();
        document.querySelector('#tab-jigsaw-button').click();
        await new Promise(requestAnimationFrame);
        return [...now, window.place.now()];
    }""")
    assert last == ["teach", "jigsaw"]
    page.wait_for_selector("#jigsaw-story .story img:visible")
    before = source(page, "jigsaw", "photo")
    upload(page, files / "sideways.jpg")
    wait_for_change(page, "jigsaw", "photo", before)
    page.wait_for_function("location.search.includes('task=jigsaw')")
    assert page.errors == []


def test_measured_charts_are_drawn_when_they_are_opened(page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("tab", name="Transfer", exact=True).click()
    if not page.is_visible("#measured-gap"):  # another test on this page may have opened it
        page.click("#measured button.label-wrap")
    page.wait_for_selector("#measured-gap .js-plotly-plot .main-svg", timeout=60_000)
    assert page.locator("#measured-bars-knn .bars .point").count() >= 3
    assert "transfer_table.py" in page.inner_text("#measured") and page.errors == [] and page.outside == []
    page.click("#measured button.label-wrap")
