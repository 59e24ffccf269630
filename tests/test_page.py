"""The running app's page, in Chromium."""

import statistics
import time

import numpy as np
import pytest
from pages import TASKS, begin, choose, open_tab, picture, set_slider, settle, source, upload, wait_for_change
from PIL import Image

from ssl_demo.checkpoints import bundled
from ssl_demo.images import load_photo, square
from ssl_demo.pretext import all_tasks
from ssl_demo.progress import steps
from ssl_demo.ui.task_tab import TaskTab


def example_of(kind):
    """A task that takes pictures or clips, and strokes of a brush."""
    return next(name for name, task in all_tasks().items() if task.card.input == kind
                and any(control.kind == "brush" for control in task.controls))


def expected_square(file):
    return np.asarray(square(load_photo(file), 96))


def cards(page):
    """Of every method on the overview, what its two pictures are."""
    return page.eval_on_selector_all(".method", "all => Object.fromEntries(all.map(card => [card.dataset.opens,"
                                     " [...card.querySelectorAll('img')].map(image => image.src)]))")


def test_page_opens_with_an_example_that_all_methods_have_answered(visit):
    assert list(cards(visit)) == TASKS and all(len(pictures) == 2 for pictures in cards(visit).values())
    sizes = visit.eval_on_selector_all(".method img", "images => images.map(i => i.naturalWidth)")
    assert min(sizes) >= 48
    assert visit.outside == [] and visit.errors == []


def test_a_new_photo_goes_through_all_methods_and_a_card_opens_its_tab_on_it(page, files):
    page.click("#room-overview-button")
    page.wait_for_selector(".method img")
    before, name = cards(page), TASKS[1]
    upload(page, files / "plain.png")
    page.wait_for_function("before => [...document.querySelectorAll('.method')].every("
                           "card => card.querySelectorAll('img')[1].src !== before[card.dataset.opens][1])", arg=before)
    page.click(f"[data-opens={name}]")
    page.wait_for_selector(f"#{name}-story .story img", state="visible")
    assert page.get_attribute(f"#tab-{name}-button", "aria-selected") == "true"
    expected = np.asarray(Image.fromarray(expected_square(files / "plain.png")).convert("L").resize((12, 12)), dtype=float)
    shown = np.asarray(Image.fromarray(picture(page, name, "photo")).convert("L").resize((12, 12)), dtype=float)
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.5 and page.errors == []


def test_the_first_card_of_a_visit_opens_its_own_tab(page, url):
    page.goto(url)
    page.click("[data-opens=rotation]")
    page.wait_for_selector("#tab-rotation-button", state="visible")
    page.wait_for_timeout(1500)  # the tabs, as they come to the page, choose another one
    assert page.get_attribute("#tab-rotation-button", "aria-selected") == "true"
    page.wait_for_selector("#rotation-story .story img >> visible=true")


@pytest.fixture(scope="module", params=TASKS)
def task(visit, request):
    """Every task in turn, its tab open for all tests that look at it: to open one costs a second."""
    begin(visit, request.param) if request.param == TASKS[0] else open_tab(visit, request.param)
    yield request.param
    visit.set_viewport_size({"width": 1440, "height": 900})


def test_every_tab_tells_its_four_steps_idea_paper_and_score(visit, task):
    card = all_tasks()[task].card
    headings = visit.locator(f"#{task}-story h3").all_inner_texts()
    first = "Clip" if card.input == "video" else "Photo"
    assert [h.split("\n")[-1] for h in headings] == [first, "What the network sees", "What it answers", "How it is judged"]
    about = visit.inner_text(f"#{task}-about")
    assert card.idea in about and card.paper in about and str(card.year) in about
    weights = next(iter(bundled(task).values()), None)
    if weights is None:
        pytest.skip(f"no weights are bundled for {task}")
    score = weights["heldout"]["score"]
    assert card.show(score) in about and "untrained" in about


def test_a_tab_fits_a_laptop_without_scrolling(visit, task):
    visit.evaluate("window.scrollTo(0, 0)")
    bottoms = visit.eval_on_selector_all(f"#{task}-story img", "all => all.map(i => i.getBoundingClientRect().bottom)")
    assert bottoms and max(bottoms) <= 900


def test_a_phone_stacks_without_scrolling_sideways(visit, task):
    visit.set_viewport_size({"width": 390, "height": 844})
    assert visit.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = visit.eval_on_selector_all(f"#{task}-story img", "images => images.map(i => { const b = i.getBoundingClientRect();"
                                       " return [b.left, b.right, b.width] })")
    assert boxes and all(left >= 0 and right <= 390 and width >= 120 for left, right, width in boxes)
    visit.set_viewport_size({"width": 1440, "height": 900})


def test_an_untrained_network_is_a_choice_that_changes_the_answer(visit, task):
    if not bundled(task):
        pytest.skip(f"no weights are bundled for {task}")
    trained = visit.inner_html(f"#{task}-story .step-answers") + visit.inner_html(f"#{task}-story .step-judged")
    choose(visit, f"#{task}-network", "Untrained")
    visit.wait_for_function("([selector, before]) => ['answers', 'judged']"
                           ".map(step => document.querySelector(selector + step).innerHTML).join('') !== before",
                           arg=[f"#{task}-story .step-", trained])
    assert visit.input_value(f"#{task}-network input") == "Untrained"


def test_an_uploaded_photo_is_shown_upright_in_every_tab(page, files):
    before, before_mae = source(page, "rotation", "photo"), source(page, "mae", "photo")
    upload(page, files / "sideways.jpg")
    wait_for_change(page, "rotation", "photo", before)
    expected = expected_square(files / "sideways.jpg").astype(int)
    assert np.abs(picture(page, "rotation", "photo") - expected).max() <= 1
    open_tab(page, "mae")
    wait_for_change(page, "mae", "photo", before_mae)
    assert np.abs(picture(page, "mae", "photo") - expected).max() <= 1
    assert page.outside == []


@pytest.mark.parametrize("file", ["notes <b>.jpg", "cut.jpg"])
def test_a_bad_file_is_named_and_nothing_is_lost(page, files, file):
    before = source(page, "rotation", "turned")
    upload(page, files / file)
    toast = page.wait_for_selector(".toast-body")
    assert file in toast.inner_text() and "/tmp" not in toast.inner_text() and "Traceback" not in page.content()
    assert page.locator(".toast-body b").count() == 0  # a file's name is text, not HTML
    assert source(page, "rotation", "turned") == before
    page.wait_for_function("name => { const image = document.querySelector('#photo img:not(.hide)');"
                           " return image && !image.src.includes(name) }", arg=file.split()[0])  # the photo before is back
    upload(page, files / "plain.png")  # the page is still usable
    wait_for_change(page, "rotation", "turned", before)
    assert np.abs(picture(page, "rotation", "photo") - expected_square(files / "plain.png").astype(int)).max() <= 1


def empty_the_box(page):
    page.click("#photo button[title='Remove Image']")
    page.wait_for_selector("#photo img:visible", state="detached")  # a box at the camera keeps a hidden one


def test_photos_to_compare_with_join_and_leave(page, files):
    name = next(name for name, task in all_tasks().items() if task.card.company)
    assert not page.is_visible("#company-add"), "only beside tabs that compare photos"
    open_tab(page, name)
    story = f"#{name}-story .story"
    changes = ("([selector, before]) => { const story = document.querySelector(selector);"
               " return story && story.innerHTML !== before }")
    before = page.inner_html(story)
    page.set_input_files("#company-side input[type=file]", [str(files / "plain.png"), str(files / "cut.jpg"),
                                                            str(files / "sideways.jpg")])
    assert "cut.jpg" in page.wait_for_selector(".toast-body").inner_text()
    page.wait_for_selector("#company img >> nth=1")
    assert page.locator("#company img").count() == 2
    page.wait_for_function(changes, arg=[story, before])  # which may come after the small pictures
    changed = page.inner_html(story)
    page.click("#company-clear")
    page.wait_for_selector("#company img", state="detached")
    page.wait_for_function(changes, arg=[story, changed])
    assert page.errors == []


def test_emptying_the_box_keeps_the_answers(page):
    before = source(page, "rotation", "photo")
    empty_the_box(page)
    page.click("#rotation-again")
    page.wait_for_timeout(1500)
    assert source(page, "rotation", "photo") == before and page.locator("#photo img:visible").count() == 0


def test_a_photo_from_the_camera(page):
    page.context.grant_permissions(["camera"])
    before = source(page, "rotation", "photo")
    empty_the_box(page)
    page.click("#photo button[aria-label='Capture from camera']")
    page.click("#photo button:has-text('Click to Access Webcam')")
    page.wait_for_function("() => { const v = document.querySelector('#photo video'); return v && v.readyState >= 2"
                           " && v.videoWidth > 0 }")
    page.click("#photo button[aria-label='capture photo']")
    wait_for_change(page, "rotation", "photo", before)
    assert picture(page, "rotation", "photo").std() > 1  # Chromium's test picture, not an empty frame


def test_a_pasted_photo(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    before = source(page, "rotation", "photo")
    empty_the_box(page)
    page.evaluate("""async () => {
        const canvas = new OffscreenCanvas(120, 80), context = canvas.getContext('2d');
        context.fillStyle = 'rgb(200, 40, 10)';
        context.fillRect(0, 0, 120, 80);
        await navigator.clipboard.write([new ClipboardItem({'image/png': await canvas.convertToBlob()})]);
    }""")
    page.click("#photo button[aria-label='Paste from clipboard']")
    wait_for_change(page, "rotation", "photo", before)
    assert np.abs(picture(page, "rotation", "photo") - np.array([200, 40, 10])).max() <= 1


def test_a_slider_answers_at_once(mae_page):
    page = mae_page
    times = []
    for ratio in (10, 30, 50, 70, 90):
        before, start = source(page, "mae", "visible"), time.perf_counter()
        set_slider(page, "#mae-mask_ratio", ratio)
        wait_for_change(page, "mae", "visible", before)
        times.append(time.perf_counter() - start)
        shown = 144 - round(144 * ratio / 100)
        page.wait_for_function(f"document.querySelector('#mae-story .figures').innerText.includes('{shown} of 144')")
    # The figure that is promised is measured by benchmarks/page_latency.py; here other tests share the machine.
    assert statistics.median(times) < 2.0


def test_what_is_turned_while_a_tab_opens_is_what_stays(mae_page, monkeypatch):
    open_tab(mae_page, "rotation")
    settle(mae_page)
    plain, slow = TaskTab.answer, [1.0]
    monkeypatch.setattr(TaskTab, "answer", lambda self, *values: (slow and time.sleep(slow.pop())) or plain(self, *values))
    with mae_page.expect_request("**/run/predict*"):
        mae_page.click("#tab-mae-button")
    set_slider(mae_page, "#mae-mask_ratio", 30)
    mae_page.wait_for_selector("#mae-story .story[data-link*='mask_ratio=30']")
    mae_page.wait_for_timeout(1100)  # the answer to the opening would be there by now
    assert "mask_ratio=30" in mae_page.get_attribute("#mae-story .story", "data-link") and slow == []


def test_a_number_typed_beyond_its_limits_goes_back_to_them_and_is_answered_so(mae_page):
    box, seed = (mae_page.locator(f"#mae-{name} input[type=number]") for name in ("mask_ratio", "seed"))
    box.fill("99")
    box.blur()
    mae_page.wait_for_selector("#mae-story .story[data-link*='mask_ratio=95']")
    seed.fill("2.7")
    seed.blur()
    mae_page.wait_for_selector("#mae-story .story[data-link*='seed=3']")
    assert (box.input_value(), seed.input_value()) == ("95", "3")
    seed.fill("-3")
    seed.blur()
    mae_page.wait_for_selector("#mae-story .story:not([data-link*='seed'])")
    assert seed.input_value() == "0" and mae_page.errors == [], "nothing was asked for that had to be refused"


def test_a_link_asks_once_all_its_controls_are_there(app):
    """A link sets the seed together with the controls: the seed's own event would ask with those of before."""
    blocks = app.get_blocks()
    names = {f"{name}-seed" for name in all_tasks()}
    seeds = {block._id for block in blocks.blocks.values() if getattr(block, "elem_id", "") in names}
    heard = {event for fn in blocks.fns.values() for block, event in fn.targets if block in seeds}
    assert len(seeds) == len(all_tasks()) and heard == {"input"}


def test_a_click_hides_and_shows_one_patch(mae_page):
    page = mae_page
    image = page.locator("#mae-story [data-panel=visible] img")
    start = picture(page, "mae", "visible")
    hidden_color = np.array([224, 222, 217])
    before, box = source(page, "mae", "visible"), image.bounding_box()
    image.click(position={"x": box["width"] * 5.5 / 12, "y": box["height"] * 3.5 / 12})
    wait_for_change(page, "mae", "visible", before)
    after = picture(page, "mae", "visible")
    changed = np.abs(after.astype(int) - start).max(axis=2) > 0
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 24 and rows.max() < 32 and columns.min() >= 40 and columns.max() < 48  # patch (3, 5) and nothing else
    assert (start[25, 41] == hidden_color).all() != (after[25, 41] == hidden_color).all()
    assert page.locator("#mae-kind input:checked").get_attribute("value") == "by hand"
    before = source(page, "mae", "visible")
    image.click(position={"x": box["width"] * 5.5 / 12, "y": box["height"] * 3.5 / 12})
    wait_for_change(page, "mae", "visible", before)
    assert np.array_equal(picture(page, "mae", "visible"), start)


def stroke(page, panel, start, end):
    """A stroke of the brush from one place of a panel to another, both as shares of its sides."""
    box = page.locator(f"{panel} img").bounding_box()
    (x, y), (u, v) = ((box["x"] + box["width"] * right, box["y"] + box["height"] * down) for right, down in (start, end))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(u, v, steps=5)
    page.mouse.up()


def test_what_is_painted_is_hidden_until_it_is_cleared(page):
    task = example_of("image")
    open_tab(page, task)
    panel = page.locator(f"#{task}-story [data-panel]", has=page.locator("img[data-brush]")).get_attribute("data-panel")
    place = f"#{task}-story [data-panel={panel}]"
    hidden = np.array([224, 222, 217])

    def covered():
        return (picture(page, task, panel) == hidden).all(axis=2)

    before = source(page, task, panel)
    stroke(page, place, (0.2, 0.2), (0.2, 0.5))
    wait_for_change(page, task, panel, before)
    first, side = covered(), len(covered())
    assert first[side // 3, side // 5] and 0.01 < first.mean() < 0.2
    before = source(page, task, panel)
    stroke(page, place, (0.7, 0.7), (0.9, 0.7))
    wait_for_change(page, task, panel, before)
    assert covered()[first].all() and covered()[int(0.7 * side), int(0.8 * side)]  # the first stroke stays
    before = source(page, task, panel)
    page.click(f"{place} .brush-clear")
    wait_for_change(page, task, panel, before)
    assert not covered().any()
    assert page.errors == []


def frames_shown(page, task):
    return page.inner_text(f"#{task}-story [data-panel=grey] figcaption")


def test_a_bad_clip_is_named_and_the_one_before_stays(page, files):
    task = example_of("video")
    open_tab(page, task)
    before = frames_shown(page, task)
    page.set_input_files("#clip input[type=file]", str(files / "cut.jpg"))
    toast = page.wait_for_selector(".toast-body")
    assert "cut.jpg" in toast.inner_text() and "/tmp" not in toast.inner_text()
    page.wait_for_timeout(1000)
    assert frames_shown(page, task) == before


def test_a_clip_has_its_box_plays_and_what_is_painted_is_followed(page, files):
    assert not page.locator("#clip").is_visible()  # beside tabs on photos
    task = example_of("video")
    open_tab(page, task)
    assert page.locator("#clip").is_visible() and "24 " in frames_shown(page, task)  # a camera moves over the photo
    page.set_input_files("#clip input[type=file]", str(files / "clip.mp4"))
    page.wait_for_function(f"document.querySelector('#{task}-story [data-panel=grey] figcaption').innerText.startsWith('6 ')")
    page.wait_for_function(f"[...document.querySelectorAll('#{task}-story video')].every(v => v.readyState >= 2 && !v.error)")
    videos, place = page.locator(f"#{task}-story video").count(), f"#{task}-story [data-panel=first]"
    page.locator(place).scroll_into_view_if_needed()
    stroke(page, place, (0.4, 0.4), (0.6, 0.5))
    page.wait_for_function(f"document.querySelectorAll('#{task}-story video').length == {videos + 1}")
    open_tab(page, "rotation")
    assert not page.locator("#clip").is_visible()
    assert page.errors == [] and page.outside == []


def test_long_work_shows_where_it_is_and_can_be_cancelled(fresh_page, monkeypatch):
    page, task, done = fresh_page, example_of("video"), []

    def answer(self, photo, *values):
        for number in steps(range(600), "frames"):  # a minute, however fast the machine is
            time.sleep(0.1)
            done.append(number)
        return "it came to its end"

    open_tab(page, task)
    page.wait_for_selector(f"#{task}-progress .progress", state="detached")
    before = frames_shown(page, task)
    monkeypatch.setattr(TaskTab, "answer", answer)
    set_slider(page, f"#{task}-frames", 96)
    page.wait_for_function("selector => /frames: [1-9][0-9]* of 600, about [0-9]+ s left/.test("
                           "document.querySelector(selector)?.innerText)", arg=f"#{task}-progress .progress")
    page.click(f"#{task}-cancel")
    page.wait_for_selector(f"#{task}-progress .progress", state="detached")
    reached = len(done)
    page.wait_for_timeout(1000)
    assert len(done) <= reached + 1, "nothing goes on in the background"
    assert frames_shown(page, task) == before and page.locator(".toast-body").count() == 0


def test_draw_again_changes_the_seed_and_the_picture(mae_page):
    page = mae_page
    before = source(page, "mae", "visible")
    page.click("#mae-again")
    wait_for_change(page, "mae", "visible", before)
    assert page.input_value("#mae-seed input") == "1"


def test_a_reload_shows_the_same_pixels(mae_page):
    page = mae_page
    before = [source(page, "mae", panel) for panel in ("visible", "reconstruction", "raw", "error", "smooth")]
    page.reload()
    open_tab(page, "mae")
    assert [source(page, "mae", panel) for panel in ("visible", "reconstruction", "raw", "error", "smooth")] == before


def test_a_link_opens_the_same_pixels_and_the_address_follows(mae_page):
    page = mae_page
    before = source(page, "mae", "visible")
    page.click("#examples [data-index='2']")
    wait_for_change(page, "mae", "visible", before)
    before = source(page, "mae", "visible")
    page.click("#mae-again")
    wait_for_change(page, "mae", "visible", before)
    page.wait_for_function("() => location.search.includes('seed=1')")
    pixels, address = source(page, "mae", "visible"), page.url
    assert "task=mae" in address and "photo=coffee" in address
    page.goto(address)  # loads all anew
    page.wait_for_selector("#mae-story .story img", state="visible")
    assert source(page, "mae", "visible") == pixels and page.input_value("#mae-seed input") == "1"
    assert page.errors == []


def test_an_example_photo_is_taken_with_a_click(page):
    before = source(page, "rotation", "photo")
    page.click("#examples [data-index='2']")
    wait_for_change(page, "rotation", "photo", before)
    import skimage.data

    expected = np.asarray(square(Image.fromarray(skimage.data.coffee()), 96)).astype(int)
    assert np.abs(picture(page, "rotation", "photo") - expected).max() <= 1


def test_pictures_have_words_for_those_who_do_not_see_them(page):
    alts = page.eval_on_selector_all(".story img, #examples img", "images => images.map(i => i.alt)")
    assert alts and all(len(alt) > 8 for alt in alts)
