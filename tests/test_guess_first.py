"""Guess first: what a task asks people, what the page shows before the answer, and the tally."""

import html
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import generator
from PIL import Image

from ssl_demo import inference, lab
from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import all_tasks, create
from ssl_demo.questions import Choice, Question, choices
from ssl_demo.ui import guess_first
from ssl_demo.ui.guess_first import Guesses, Outcome, covered_html, fixed, outcome, riddle
from ssl_demo.ui.panels import data_url, panel_html
from ssl_demo.ui.story import story
from ssl_demo.ui.take_buttons import button_html


def told(task, result, photo, seed, guesses, links):
    return guess_first.told(task, result, photo, seed, guesses, links, story(result, task.card, *links))


ASKING = [name for name, task in all_tasks().items() if guess_first.asks(task)]
PHOTO = EXAMPLES[0].image
LINKS = ("?task=one&photo=two", {"Python": "run()"})


def run(name, weights=None, seed=0, photo=PHOTO, **controls):
    return inference.load(name, weights).run(photo, seed=seed, **controls)


# What is asked


def test_the_tasks_that_ask():
    assert set(ASKING) == {"rotation", "relative_patch", "jigsaw", "colorization"}


@pytest.mark.parametrize("name", ASKING)
def test_a_question_can_be_answered(name):
    for seed in range(4):
        question = run(name, seed=seed).question
        labels = [choice.label for choice in question.choices]
        assert len(set(labels)) == len(labels) >= 4 and all(labels) and question.text.endswith("?")
        assert question.choices[question.truth] in question.choices
        assert sum(choice.share for choice in question.choices) == pytest.approx(1)
        assert question.choices[question.answer].share == max(choice.share for choice in question.choices)
        assert question.picture.dtype == np.uint8 and question.picture.std() > 1


def same(one, other, network=True):
    """Whether two questions are one, pixel by pixel; without `network`, whatever it says of them."""
    plain = [replace(q, picture=q.picture.tobytes(), middle=q.middle is not None and q.middle.tobytes()) for q in (one, other)]
    if not network:
        plain = [replace(q, choices=tuple(replace(choice, share=0.0) for choice in q.choices)) for q in plain]
    return plain[0] == plain[1]


@pytest.mark.parametrize("name", ASKING)
def test_a_question_is_a_function_of_its_seed_and_not_of_the_network(name):
    first = run(name, seed=3).question
    assert same(first, run(name, seed=3).question)
    assert same(first, run(name, "untrained", seed=3).question, network=False)
    assert not same(first, run(name, "untrained", seed=3).question)
    others = [run(name, seed=seed).question for seed in range(8)]
    assert len({other.truth for other in others}) > 2, "whoever knows one answer must not know the next"


@pytest.mark.parametrize("name", ASKING)
def test_the_network_answers_the_same_question_better_than_chance(name):
    asked = [q for example in EXAMPLES for seed in range(5) if (q := run(name, seed=seed, photo=example.image).question)]
    right = sum(question.answer == question.truth for question in asked)
    assert len(asked) > 15 and right > 1.3 * sum(1 / len(question.choices) for question in asked)


def test_a_tiles_place_gets_the_shares_of_all_orders_that_put_it_there():
    task = create("jigsaw", permutations=20)
    example = task.example(torch.rand(1, 3, 96, 96, generator=generator()), generator(1))
    prediction = {"logits": torch.randn(1, 1, 20, generator=generator(2))}
    question, place = task.question(example, prediction), int(example["targets"][0, 0]) % 9
    probabilities = prediction["logits"][0, 0].softmax(dim=0).tolist()
    for number, choice in enumerate(question.choices):
        expected = sum(p for p, order in zip(probabilities, task.permutations.tolist()) if order[place] == number)
        assert choice.share == pytest.approx(expected, abs=1e-6)
    assert question.truth == example["orders"][0, 0, place]


def test_swatches_differ_are_equally_light_and_hold_the_true_colour():
    for seed in range(5):
        result = run("colorization", seed=seed, photo=EXAMPLES[2].image)
        if (question := result.question) is None:
            continue
        colors = torch.tensor([[int(c.color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for c in question.choices])
        seen = lab.rgb_to_lab(colors.T[None, :, :, None])[0, :, :, 0].T  # (n, 3)
        assert seen[:, 0].max() - seen[:, 0].min() < 3
        assert torch.pdist(seen[:, 1:]).min() > lab.APART - 3
        assert len({choice.label.split(": ")[1] for choice in question.choices}) == len(question.choices), "told by words too"
        task = inference.load("colorization").task
        example = inference.load("colorization").example(EXAMPLES[2].image, seed, result.controls)
        x, y = (min(int(float(share) * task.size), task.size - 1) for share in example["pixel"][0])
        assert (seen[question.truth, 1:] - example["targets"][0, :, y, x]).norm() < 2


def test_a_grey_photo_leaves_no_colour_to_guess():
    assert run("colorization", photo=PHOTO.convert("L").convert("RGB")).question is None


@pytest.mark.parametrize("labels, truth, board", [(("a", "a"), 0, False), (("a",), 0, False), (("a", "b"), 2, False),
                                                  (("a", "b"), 0, True)])
def test_a_question_that_makes_no_sense_is_refused(labels, truth, board):
    with pytest.raises(AssertionError):
        Question("?", choices(labels, torch.ones(len(labels))), truth, np.zeros((4, 4, 3), np.uint8), "", "", board=board)


# What the page shows


@pytest.mark.parametrize("name", ASKING)
def test_what_is_covered_is_not_on_the_page(name):
    task, result = all_tasks()[name], run(name, seed=1)
    shown = told(task, result, PHOTO, 1, Guesses(on=True), LINKS)
    whole = told(task, result, PHOTO, 1, Guesses(), LINKS)
    visible = data_url(result.question.picture)
    for panel in result.panels:
        assert f'data-panel="{panel.name}"' in whole and f'data-panel="{panel.name}"' not in shown
        assert panel_html(panel, button_html(panel)) in whole
        assert panel.image is None or data_url(panel.image) == visible or data_url(panel.image) not in shown
    assert 'class="figures"' in whole and 'class="figures"' not in shown and "verdict" not in shown
    assert shown.count("data-pick=") == len(result.question.choices) and visible in shown
    assert f'data-link="{html.escape(LINKS[0])}"' in shown, "the address follows while a question is open"
    # Neither the truth nor the network's answer can be read from it: were they others, the page would be the same.
    question = result.question
    count = len(question.choices)
    moved = tuple(replace(choice, share=other.share) for choice, other in zip(question.choices, question.choices[::-1]))
    other = replace(question, truth=(question.truth + 1) % count, choices=moved)
    assert other.answer != question.answer or count % 2
    assert covered_html(task, other, Guesses(on=True), LINKS) == shown


@pytest.mark.parametrize("name", ASKING)
def test_after_the_guess_everything_is_there_and_named(name):
    task, result = all_tasks()[name], run(name, seed=1)
    question = result.question
    wrong = (question.truth + 1) % len(question.choices)
    hands = [int(number == wrong) for number in range(len(question.choices))]
    guesses = Guesses(on=True).with_outcome(name, riddle(PHOTO, 1), outcome(question, hands))
    shown = told(task, result, PHOTO, 1, guesses, LINKS)
    verdict, _, rest = shown.partition('<div class="story"')
    assert all(panel_html(panel, button_html(panel)) in rest for panel in result.panels)
    for number in (wrong, question.answer, question.truth):
        assert html.escape(question.choices[number].label) in verdict
    assert "✗ wrong" in verdict and ("✓ right" in verdict) == (question.answer == question.truth)
    turned = {c.name: c.minimum for c in task.controls if c.kind == "slider"}
    assert "verdict" in told(task, run(name, seed=1, **turned), PHOTO, 1, guesses, LINKS), "controls do not ask again"
    assert "asking" in told(task, run(name, seed=2), PHOTO, 2, guesses, LINKS), "another seed does"
    assert "asking" in told(task, run(name, seed=1, photo=EXAMPLES[1].image), EXAMPLES[1].image, 1, guesses, LINKS)


@pytest.mark.parametrize("name", [name for name in ASKING if any(control.fixes for control in all_tasks()[name].controls)])
def test_a_control_that_says_the_answer_leaves_nothing_to_guess(name):
    task = all_tasks()[name]
    control = next(control for control in task.controls if control.fixes)
    result = run(name, **{control.name: control.choices[-1]})
    shown = told(task, result, PHOTO, 0, Guesses(on=True), LINKS)
    assert not fixed(task, run(name)) and control.label in fixed(task, result)
    assert html.escape(fixed(task, result)) in shown and "asking" not in shown and "data-pick" not in shown


def test_where_there_is_nothing_to_guess_the_next_question_is_at_hand():
    grey = PHOTO.convert("L").convert("RGB")
    shown = told(all_tasks()["colorization"], run("colorization", photo=grey), grey, 0, Guesses(on=True), LINKS)
    assert html.escape(guess_first.NOTHING) in shown and 'data-guess="next"' in shown and "<img" not in shown


# The tally


def given(right, network, of=4, hands=None):
    """An outcome of a question whose first answer is right."""
    hands = hands or [int(right), int(not right)] + [0] * (of - 2)
    return Outcome(tuple("abcdefghi"[:of]), tuple(hands), 0, 0 if network else 1, 0.5)


def test_the_tally_counts_each_question_once_by_task_and_in_all():
    guesses = Guesses(on=True)
    for number, (right, network) in enumerate([(1, 1), (0, 1), (1, 1), (1, 0), (0, 1)]):
        guesses = guesses.with_outcome("one", f"riddle {number}", given(right, network))
    assert guesses.tally("one") == (5, 3, 4, 1.25)
    assert guess_first.sentence(guesses.tally("one")) == "you 3 of 5, the network 4 of 5, chance 1.3 of 5"
    again = guesses.with_outcome("one", "riddle 1", given(1, 1))
    assert again.tally("one") == guesses.tally("one"), "who has seen the answer is not asked again"
    both = guesses.with_outcome("two", "riddle 1", given(0, 0, of=8))
    assert both.tally("two") == (1, 0, 0, 0.125) and both.tally() == (6, 3, 4, 1.375) and guesses.tally("two")[0] == 0


def test_a_reset_forgets_the_tally_but_not_what_was_seen():
    guesses = Guesses(on=True).with_outcome("one", "a", given(1, 0)).reset()
    assert guesses.tally() == (0, 0, 0, 0) and ("one", "a") in guesses.outcomes
    assert guesses.with_outcome("one", "b", given(0, 1)).tally() == (1, 0, 1, 0.25)


def test_a_class_counts_by_the_share_of_hands_that_were_right():
    assert given(0, 1, hands=[15, 30, 5, 0]).right == (0.3, 1, 0.25)
    question = Question("?", (Choice("a", 0.2), Choice("b", 0.8)), 0, np.zeros((4, 4, 3), np.uint8), "", "")
    assert outcome(question, [3, 1]).right == (0.75, 0, 0.5) and outcome(question, [3, 1]).share == 0.8


@pytest.mark.parametrize("hands", [[0, 0], [1], [1, -1], [1, 2.5], [1, "2"], [True, 0], [1, 10**9], []])
def test_hands_that_make_no_sense_are_refused(hands):
    question = Question("?", (Choice("a", 0.2), Choice("b", 0.8)), 0, np.zeros((4, 4, 3), np.uint8), "", "")
    with pytest.raises(ValueError, match=r"hands.*\.$"):
        outcome(question, hands)


@pytest.mark.parametrize("value, says", [(0, "0"), (3.0, "3"), (0.25, "0.25"), (0.125, "0.13"), (1.25, "1.3"), (2 / 3 * 3, "2")])
def test_counts_as_people_read_them(value, says):
    assert guess_first.number(value) == says


def test_a_riddle_is_the_photo_and_the_seed():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    assert riddle(PHOTO, None) == riddle(PHOTO.copy(), 0) != riddle(PHOTO, 1) and riddle(noise, 0) != riddle(PHOTO, 0)


# In the browser


def test_a_round_of_rotation(page):
    story = "#rotation-story"
    page.click(f"{story} [data-guess=start]")
    page.wait_for_selector(f"{story} .asking")
    assert page.locator(f"{story} [data-panel]").count() == 1 and page.locator(f"{story} .figures").count() == 0
    assert not page.is_visible("#photo img"), "the photo at the side is covered as well"
    page.keyboard.press("ArrowDown")  # the first answer has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{story} .verdict")
    said = page.locator(f"{story} .said b").all_inner_texts()
    assert said[0] == "90°, to the left"
    assert page.inner_text(f"{story} [data-panel=turned] h4") == f"Turned by {said[2].split(',')[0]}"
    assert page.inner_text(f"{story} .tally dd >> nth=0") == f"{int(said[0] == said[2])} of 1"
    assert page.inner_text(f"{story} .tally dd >> nth=2") == "0.25 of 1" and page.is_visible("#photo img")
    page.keyboard.press("Enter")  # Next has it
    page.wait_for_selector(f"{story} .asking")
    assert page.input_value("#rotation-seed input") == "1"
    page.wait_for_function("document.activeElement.dataset.pick === '0'")
    page.keyboard.press("3")
    page.wait_for_selector(f"{story} .verdict")
    assert page.locator(f"{story} .said b").first.inner_text() == "180°, upside down"
    assert page.inner_text(f"{story} .tally dd >> nth=2") == "0.50 of 2"
    page.click("#rotation-angle label:has-text('90')")
    page.wait_for_selector(f"{story} .verdict:has-text('Nothing to guess')")
    page.click(f"{story} [data-guess=stop]")
    page.wait_for_selector(f"{story} .guess-start")
    assert page.errors == [] and page.outside == []
