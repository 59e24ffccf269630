"""The room where a visitor teaches, in Chromium, and its endpoint."""

import shutil
import time

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def brought(tmp_path_factory, files):
    """Two pictures each of two kinds, and a file that is none."""
    folder = tmp_path_factory.mktemp("taught")
    for color in ("red", "blue"):
        for number in range(2):
            Image.new("RGB", (64, 48), (200 - 40 * number, 40, 40) if color == "red" else (40, 40, 200 - 40 * number)).save(
                folder / f"{color}{number}.png")
    shutil.copy(files / "notes <b>.jpg", folder / "notes <b>.jpg")
    return folder


def shown(page, place):
    return page.locator(f"#teach-shelf-{place} img").count()


def wait_for(page, place, count):
    page.wait_for_function("([place, count]) => document.querySelectorAll(`#teach-shelf-${place} img`).length === count",
                           arg=[place, count])


def test_pictures_are_taught_classified_taken_away_and_forgotten(page, brought):
    page.get_by_role("tab", name="Teach it").click()
    page.wait_for_selector("#teach-story h3")
    assert page.locator("#teach-story .lanes li").count() >= 2 and page.locator("#teach-joint").count() == 0
    page.fill("#teach-name-0 input", "Red <i>things</i>")
    page.keyboard.press("Tab")
    bad = [str(brought / name) for name in ("red0.png", "notes <b>.jpg", "red1.png")]
    page.set_input_files("#teach-class-0 input[type=file]", bad)
    wait_for(page, 0, 2)
    assert "is a text file, not a photo" in page.inner_text(".toast-body") and "notes <b>" in page.inner_text(".toast-body")
    # Files that are dropped on a class go the same way.
    dropped = [list((brought / f"blue{number}.png").read_bytes()) for number in range(2)]
    page.evaluate("""(pictures) => {
      const drop = new DataTransfer();
      pictures.forEach((bytes, n) => drop.items.add(new File([new Uint8Array(bytes)], `blue${n}.png`, {type: 'image/png'})));
      document.querySelector('#teach-shelf-1').dispatchEvent(new DragEvent('drop', {dataTransfer: drop, bubbles: true}));
    }""", dropped)
    wait_for(page, 1, 2)
    page.wait_for_selector("#teach-joint", timeout=60_000)
    assert page.inner_text("#teach-joint") in ("Red <i>things</i>", "Class B", "Undecided")  # a cat is neither
    assert "On 4 pictures" in page.inner_text("#teach-story")
    assert page.locator("#teach-story .reach").count() == page.locator("#teach-story .votes li").count() >= 2
    assert max(page.eval_on_selector_all("#teach-story li", "all => all.map(e => e.getBoundingClientRect().bottom)")) < 900

    page.click("#large-type")
    page.set_viewport_size({"width": 1920, "height": 1080})
    assert page.eval_on_selector_all("#teach-story .lanes li > span:last-child", "all => all.filter(e => e.offsetParent"
                                     " && e.scrollWidth > e.clientWidth).map(e => e.innerText)") == [], "no percentage is cut"
    page.set_viewport_size({"width": 1440, "height": 900})
    page.click("#large-type")

    page.set_input_files("#photo input[type=file]", str(brought / "blue1.png"))  # the house's photo, whatever changes it
    page.wait_for_function("() => document.querySelector('#teach-joint')?.innerText === 'Class B'")

    page.click("#teach-shelf-0 button >> nth=0")
    wait_for(page, 0, 1)
    page.wait_for_function("() => !document.querySelector('#teach-joint')")
    page.click("#teach-more")
    page.wait_for_selector("#teach-class-2")
    page.click("#teach-over")
    wait_for(page, 0, 0)
    wait_for(page, 1, 0)
    page.wait_for_selector("#teach-class-2", state="hidden")
    assert page.input_value("#teach-name-0 input") == "Class A" and page.errors == []


def test_a_long_look_tells_how_far_it_is_and_can_be_cancelled(fresh_page, monkeypatch):
    from ssl_demo import teach

    looked = []

    def slowly(pictures, encoder):
        looked.append(encoder)
        time.sleep(1)
        return embed(pictures, encoder)

    embed, page = teach.embed, fresh_page
    page.click("#room-teach-button")
    page.wait_for_selector("#teach-story h3")
    before = page.inner_html("#teach-story .html-container")
    assert not page.locator("#teach-cancel").is_visible()
    monkeypatch.setattr(teach, "embed", slowly)
    page.click("#teach-example")
    page.wait_for_function("/[1-9][0-9]* of [0-9]+, about [0-9]+ s left/.test("
                           "document.querySelector('#teach-progress .progress')?.innerText)", timeout=60_000)
    page.click("#teach-cancel")
    page.wait_for_function("document.querySelector('#teach-progress').innerText.includes('Cancelled')", timeout=30_000)
    reached = len(looked)
    page.wait_for_timeout(1500)
    assert len(looked) == reached < len(teach.encoders()) and page.inner_html("#teach-story .html-container") == before
    assert not page.locator("#teach-cancel").is_visible()
    monkeypatch.setattr(teach, "embed", embed)
    page.click("#teach-shelf-0 button >> nth=0")  # any change lets them look again
    page.wait_for_selector("#teach-joint", timeout=60_000)
    page.wait_for_function("!document.querySelector('#teach-progress :is(.progress, .note)')", timeout=30_000)
    assert page.errors == []


def test_the_endpoint_answers_in_plain_values_and_names_what_is_wrong(url, brought):
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    files = [handle_file(str(brought / f"{color}{number}.png")) for color in ("red", "blue") for number in range(2)]
    told = client.predict(files=files, labels=["red", "red", "blue", "blue"], file=files[3], api_name="/teach")
    assert told["chance"] == 0.5 and told["together"]["class"] == "blue"
    assert all(row["low"] <= row["accuracy"] <= row["high"] and row["of"] == 4 for row in told["encoders"])
    assert client.predict(files=files, labels=["red", "red", "blue", "blue"], api_name="/teach")["together"] is None
    for labels, words in ((["red"], "`labels` must be a JSON list"), (["red", "red", "red", "blue"], "at least 2 pictures each")):
        with pytest.raises(Exception, match=words):
            client.predict(files=files, labels=labels, api_name="/teach")
    with pytest.raises(Exception, match="“notes .*b.*.jpg” is a text file"):
        client.predict(files=[handle_file(str(brought / "notes <b>.jpg"))], labels=["a"], api_name="/teach")
