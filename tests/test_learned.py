"""How a network learned: the file that ships, the command that writes it, and the slider that plays it."""

import dataclasses
import io
import json
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT, SMALL

from ssl_demo import learned
from ssl_demo.checkpoints import save_weights
from ssl_demo.examples import EXAMPLES
from ssl_demo.inference import Result
from ssl_demo.learned import Answer, Learned, keep
from ssl_demo.pretext import Bar, Number, Panel, all_tasks, create, fresh
from ssl_demo.training import with_settings
from ssl_demo.ui import how_it_learned

sys.path.insert(0, str(ROOT / "benchmarks"))
STEPS = (1, 2, 4, 9)


def colored(step, photo):
    """A picture that is another one for every step and photo."""
    return np.full((12, 16, 3), (20 * step, 60 * photo, 90), np.uint8)


def made_up(task="rotation", **changes):
    """Three panels: one that never changes, one that does, and bars."""
    def answer(photo, step):
        panels = (Panel("seen", "Seen", "By it.", "sees", image=colored(0, photo)),
                  Panel("said", "Said", f"After {step}.", "answers", image=colored(step, photo)),
                  Panel("sure", "Sure", "", "judged", bars=(Bar("<a>", step / 10, True, True), Bar("b", 1 - step / 10))))
        return Answer(tuple(keep(panel, 80) for panel in panels), (Number("Right", None, f"{step} of 9", "chance: 1"),))

    answers = {example.name: tuple(answer(n, step) for step in STEPS) for n, example in enumerate(EXAMPLES)}
    whole = Learned(task, "rotation-small", "abc", "python x", STEPS, ((1, 32, 1.4, 0.2), (3, 96, 1.2, 0.4), (9, 288, 1.0, 0.5)),
                    1.386, 0.25, answers)
    return dataclasses.replace(whole, **changes)


@pytest.fixture
def kept(no_weights):
    """The made-up file, in place of those that ship."""
    how_it_learned.learned_html.cache_clear()
    yield learned.save(made_up())
    how_it_learned.learned_html.cache_clear()


def test_what_was_saved_is_loaded(kept):
    assert learned.load("rotation") == made_up() and kept == learned.file_of("rotation")
    with zipfile.ZipFile(kept) as archive:
        assert len(archive.namelist()) == 1 + 4 * (1 + len(STEPS)), "a picture that no step changes is kept once"
    content = kept.read_bytes()
    assert learned.save(made_up()).read_bytes() == content, "the same answers give the same file"


def test_levels_between_the_points_of_the_curve():
    kept = made_up()
    assert kept.level_at(3) == pytest.approx((1.2, 0.4)) and kept.level_at(100) == pytest.approx((1.0, 0.5))
    assert 1.2 < kept.level_at(2)[0] < 1.4 and kept.images_after(2) == 64


def test_there_need_not_be_a_file():
    with pytest.raises(ValueError, match="^How nothing learned was not kept"):
        learned.load("nothing")


def rewritten(path, change=None, without=(), extra=b""):
    """Writes the file anew, with a table that `change` changed, and without some of its pictures."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    table = json.loads(parts["learned.json"])
    if change:
        change(table)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**parts, "learned.json": json.dumps(table).encode()}.items():
            if name not in without:
                archive.writestr(name, content if name == "learned.json" else content + extra)
    path.write_bytes(stream.getvalue())


@pytest.mark.parametrize("change", [
    lambda t: t.update(task="mae"), lambda t: t.update(more=1), lambda t: t.pop("curve"), lambda t: t["steps"].reverse(),
    lambda t: t["steps"].append(11), lambda t: t.update(steps=[1, "2", 4, 9]), lambda t: t["answers"].pop("coffee"),
    lambda t: t["answers"]["coffee"].pop(), lambda t: t["answers"]["coffee"][0]["panels"].pop(), lambda t: t.update(chance="x"),
    lambda t: t["answers"]["coffee"][0]["panels"][0].update(stage="elsewhere"),
    lambda t: t["answers"]["coffee"][0]["panels"][2]["bars"][0].__setitem__(1, 2.0), lambda t: t.update(guessing=float("nan")),
    lambda t: t["answers"]["coffee"][1]["panels"][1].update(picture="../../0"), lambda t: t["curve"][0].pop(),
])  # fmt: skip
def test_a_file_that_says_something_else_is_refused(kept, change):
    rewritten(kept, change)
    with pytest.raises(ValueError, match="^rotation.zip holds something else than how rotation learned"):
        learned.load("rotation")


def test_a_damaged_file_is_refused(kept):
    content = kept.read_bytes()
    place = content.index(b"WEBP") + 30
    for damaged in (b"", b"no zip", content[: len(content) // 2], content[:place] + b"!!!" + content[place + 3 :]):
        kept.write_bytes(damaged)
        with pytest.raises(ValueError, match="^rotation.zip is not a whole file"):
            learned.load("rotation")
    kept.write_bytes(content)
    rewritten(kept, without=("3.webp",))
    with pytest.raises(ValueError, match="something else"):
        learned.load("rotation")
    kept.write_bytes(content)
    with zipfile.ZipFile(kept, "a") as archive:
        archive.writestr("bomb.webp", bytes(9 * learned.LIMIT), zipfile.ZIP_DEFLATED)  # a bomb
    with pytest.raises(ValueError, match="too much to unpack"):
        learned.load("rotation")
    kept.write_bytes(content + bytes(learned.LIMIT))
    with pytest.raises(ValueError, match="bytes"):
        learned.load("rotation")
    assert "bytes" in how_it_learned.learned_html("rotation"), "the page says it in its place"


def test_nothing_too_large_is_written(no_weights):
    noise = np.random.default_rng(0).integers(0, 256, (4, len(STEPS), 240, 240, 3), np.uint8)
    answers = {example.name: tuple(Answer((keep(Panel("a", "A", "", "sees", image=one), 92),), (Number("n", None, "1"),))
                                   for one in noise[photo]) for photo, example in enumerate(EXAMPLES)}  # fmt: skip
    with pytest.raises(ValueError, match="limit is 300,000"):
        learned.save(made_up(answers=answers))
    assert not learned.file_of("rotation").exists()


def test_every_file_that_ships_is_whole_and_small():
    files = sorted(learned.file_of("any").parent.glob("*"))
    assert {file.suffix for file in files} <= {".zip"} and {file.stem for file in files} <= set(all_tasks())
    for file in files:
        kept = learned.load(file.stem)
        assert file.stat().st_size <= learned.LIMIT and len(kept.steps) >= 4, file.name
        assert any(len(set(answers)) > 2 for answers in kept.answers.values()), f"{file.name}: nothing changes"


@pytest.mark.parametrize("name", all_tasks())
def test_what_a_card_names_is_chosen(name):
    """Without a run: `test_overview` shows that what the overview names is there."""
    card, image = all_tasks()[name].card, np.zeros((8, 8, 3), np.uint8)
    named = card.learned or card.overview
    shown = [Panel(stage, "t", "c", stage, image=image) for stage in ("sees", "answers")]
    shown += [Panel(each, "t", "c", "answers", image=image) for each in card.learned[:-1]]
    figures = {each: Number(each, 1, "1") for each in ("first", *named[-1:])}
    panels, numbers = learned.chosen(Result(shown, figures, {}, 1.0), card)
    assert [panel.name for panel in panels] == [*(card.learned[:-1] or ("sees", "answers"))]
    assert [number.label for number in numbers] == [*(named[-1:] or ("first",))]


def test_of_a_clip_the_frame_in_the_middle_is_kept_and_a_large_picture_made_smaller():
    video = np.stack([np.full((300, 400, 3), 40 * t, np.uint8) for t in range(5)])
    kept = keep(Panel("v", "V", "Moves.", "sees", video=video), 90)
    assert kept.size == (240, 180) and kept.caption == "Moves. Frame 3 of 5."


@pytest.fixture
def history(no_weights, tmp_path):
    """A history of 1, 2 and 4 steps, and of a training of 6 steps the weights beside it."""
    task, _ = with_settings(all_tasks()["rotation"], dict(pair.split("=") for pair in SMALL["rotation"]))
    for step in (1, 2, 4, 16):
        save_weights(tmp_path / "run.history" / f"{step:07d}.safetensors", task, fresh(task, step), {"step": step})
    (tmp_path / "run.history/0000008.safetensors").write_bytes(b"broken off")
    points = [{"step": step, "images": 32 * step, "loss": 1.4 - step / 10, "metric": 0.2 + step / 10} for step in (1, 3, 6)]
    card = {"steps": 6, "curve": points, "recipe": {"batch": 32}}
    save_weights(tmp_path / "run.safetensors", task, fresh(task, 6), card)
    card |= {"steps": 20, "before": {"steps": 6, "images_seen": 192}}
    save_weights(tmp_path / "later.safetensors", task, fresh(task, 7), card)
    return tmp_path / "run.history"


def test_the_command_writes_what_the_networks_of_a_history_say(history, capsys):
    import how_it_learned as command

    command.main(["rotation", "--history", str(history)])
    kept = learned.load("rotation")
    assert kept.steps == (1, 2, 4, 6) and kept.weights == "run" and [point[0] for point in kept.curve] == [1, 3, 6]
    assert kept.guessing == pytest.approx(np.log(4)) and kept.chance == 0.25 and "trained for 6 steps" in capsys.readouterr().err
    expected = learned.chosen(command.ask("rotation", history / "0000004.safetensors")[2], create("rotation").card)
    assert [bar.value for bar in kept.answers["coffee"][2].panels[2].bars] == pytest.approx(
        [bar.value for bar in expected[0][2].bars], abs=1e-4)
    assert kept.answers["coffee"][2].figures[0].text == expected[1][0].text

    later = history.with_name("later.safetensors")
    command.main(["rotation", "--history", str(history), "--final", str(later)])
    kept = learned.load("rotation")
    assert kept.steps == (1, 2, 4, 6, 16, 26), "what a training began with counts, and its last weights stand among the others"
    assert [point[0] for point in kept.curve] == [1, 3, 6, 7, 9, 12] and kept.images_after(6) == 192
    assert "left out: 0000008" in capsys.readouterr().err


def test_the_page_draws_every_step_once(kept):
    drawn = how_it_learned.learned_html("rotation")
    assert drawn.count('data-photo="') == 4 and drawn.count("data:image/webp") == 4 * (1 + len(STEPS))
    assert drawn.count("&lt;a&gt;") == 4 * len(STEPS) and "another by now" in drawn and 'alt="Said. After 9."' in drawn
    assert drawn.count('<polyline') == 2 and "guessing" in drawn and "chance" in drawn


def test_sliding_and_playing_happen_in_the_browser(kept, chromium):
    import gradio as gr

    with gr.Blocks() as demo:
        story = gr.HTML('<div class="story" data-link="?task=rotation&amp;photo=coffee"></div>', elem_id="rotation-story")
        how_it_learned.HowItLearned("rotation")
        how_it_learned.HowItLearned("mae")  # of which nothing was kept
        own = gr.Button("Own")
        own.click(lambda: '<div class="story" data-link="?task=rotation"></div>', None, story)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    page = chromium.new_page()
    try:
        page.goto(url)
        page.click("#rotation-learned button.label-wrap")
        page.wait_for_selector("#rotation-learned .learned-after .now")
        assert page.locator("#mae-learned").count() == 0
        asked = []
        page.on("request", lambda request: asked.append(request.url))

        def seen(selector):
            return page.inner_text(f"#rotation-learned [data-photo]:not([hidden]) {selector}")

        assert "after 1 step," in page.inner_text(".learned-after .now") and "After 1." in seen(".now [data-panel=said]")
        assert "A cup of coffee" in seen(".learned-lead")
        assert page.inner_text(".learned-play") == "Play", "nothing plays by itself"
        marks = [page.get_attribute("line.now >> nth=0", "x1")]
        page.focus(".learned-bar input")
        page.keyboard.press("ArrowRight")
        assert "after 2 steps, 64 photos" in page.inner_text(".learned-after .now")
        assert "2 of 9" in seen(".now .learned-figure") and "After 2." in seen(".now [data-panel=said]")
        marks.append(page.get_attribute("line.now >> nth=0", "x1"))
        page.click(".learned-play")
        page.wait_for_function("document.querySelector('.learned-bar input').value === '3'")
        page.wait_for_function("document.querySelector('.learned-play').textContent === 'Play'")
        marks.append(page.get_attribute("line.now >> nth=0", "x1"))
        assert marks[0] == "46.0" and marks[2] == "290.0" and 46 < float(marks[1]) < 290, "the mark moves along the curve"
        assert [url for url in asked if not url.startswith("data:")] == []
        page.get_by_role("button", name="Own").click()
        page.wait_for_function("!document.querySelector('[data-photo=chelsea]').hidden")
        assert "example photos only" in seen(".learned-own")
    finally:
        page.close()
        demo.close()
