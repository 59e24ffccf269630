"""Texts: all of them stand in `languages/en.yaml`, other languages have the same ones, and what is said is looked up there."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_demo import texts
from ssl_demo.examples import EXAMPLES
from ssl_demo.inference import load
from ssl_demo.pretext import all_tasks
from ssl_demo.texts import ENGLISH, MADE, Table, groups, in_script, languages, say, spoken

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import texts as collector  # noqa: E402

OTHERS = [language for language in languages() if language != ENGLISH]
AGAIN = "run python benchmarks/texts.py --write"


def keys(language):
    return {key for group in groups(language).values() for key in group}


@pytest.fixture
def speaking(monkeypatch):
    """speaking(groups): for the time of a test, texts are said with these translations."""
    def speaking(found):
        made = Table(found)
        monkeypatch.setattr(texts, "table", lambda: made)
        texts._found.cache_clear()

    yield speaking
    texts._found.cache_clear()


def test_english_holds_each_text_once_as_it_is():
    found = [pair for group in groups(ENGLISH).values() for pair in group.items()]
    assert all(key == value for key, value in found) and len(found) == len(keys(ENGLISH)) > 1000


def test_english_holds_what_stands_in_the_code_and_nothing_else():
    still = {place: {text for text in found if collector.in_words(text)} for place, found in collector.still().items()}
    assert set().union(*still.values()) - keys(ENGLISH) == set(), AGAIN
    tasks = set(all_tasks())  # of these some texts are known by running them only
    kept = {place: set(group) for place, group in groups(ENGLISH).items() if place not in tasks}
    assert {text for place, group in kept.items() for text in group - still.get(place, set())} == set(), AGAIN


@pytest.mark.parametrize("task", all_tasks())
def test_english_holds_what_a_run_says(task):
    said = {text for text in map(collector.bare, collector.run(task, thorough=False)) if collector.in_words(text)}
    assert len(said) > 20 and said - keys(ENGLISH) == set(), AGAIN


@pytest.mark.slow
def test_english_is_what_the_command_writes():
    assert {key for group in collector.collected().values() for key in group} == keys(ENGLISH), AGAIN


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_has_the_same_texts_with_the_same_places(language):
    lacking, more = keys(ENGLISH) - keys(language), keys(language) - keys(ENGLISH)
    assert (lacking, more) == (set(), set())
    for place, group in groups(language).items():
        for key, value in group.items():
            assert value.strip(), key
            wanted, there = (sorted(set(collector.places(text))) for text in (key, value))
            assert there == wanted or place == MADE and set(there) < set(wanted), (key, value)  # a word may not be needed
            assert {sign for sign in '<>"' if value.count(sign) > key.count(sign)} == set(), (key, value)


def test_a_text_is_found_as_it_is_by_its_numbers_or_by_its_pattern(speaking):
    speaking({"a": {"yes": "ja", "{0} of {1} right.": "Von {1} sind {0} richtig.", "photos": "Fotos", "1: low": "1: tief"},
              MADE: {"There is no “{name}”; there are {known}.": "Kein „{name}“, nur {known}."},
              "page": {"{count:,} held-out": "{count:,} zurückgehalten"}})
    assert say("yes") == "ja" and say("1: low") == "1: tief" and say("12.5 %") == "12.5 %"
    assert say("3 of 8 right.") == "Von 8 sind 3 richtig." and say("1,600 of −2.5 right.") == "Von −2.5 sind 1\xa0600 richtig."
    assert say("There is no “{x}”; there are photos.") == "Kein „{x}“, nur Fotos."
    assert say("{count:,} held-out", count=3694) == "3\xa0694 zurückgehalten"
    assert say("A: yes") == "A: ja" and say("never heard of") == "never heard of"


def test_english_is_left_as_it_is():
    assert texts.table() == {} and say("3,694 of 8") == "3,694 of 8" and say("{count:,} clips", count=1600) == "1,600 clips"
    card = all_tasks()["mae"].card
    assert spoken(card) is card and in_script("a = say('Copied') + 1") == 'a = "Copied" + 1'


@pytest.mark.parametrize("language", OTHERS)
def test_a_run_is_said_whole_and_stays_the_same_for_programs(language, speaking):
    result = load("rotation").run(EXAMPLES[0].image)
    titles, numbers = [panel.title for panel in result.panels], result.numbers
    speaking(groups(language))
    told = spoken(result)
    assert all(ours.title != panel.title and ours.caption != panel.caption and ours.image is panel.image
               for ours, panel in zip(told.panels, result.panels))
    assert all(ours.label != number.label for ours, number in zip(told.figures.values(), result.figures.values()))
    assert told.question.text != result.question.text and told.numbers == numbers
    assert [panel.title for panel in result.panels] == titles


@pytest.mark.parametrize("language", OTHERS)
def test_choices_are_said_and_their_values_are_not(language, speaking):
    from ssl_demo.ui.task_tab import component

    speaking(groups(language))
    control = all_tasks()["relative_patch"].controls[0]
    made = component(control, "relative_patch")
    assert [value for _, value in made.choices] == [*control.choices] and made.label != control.label
    assert all(label != value for label, value in made.choices)


def test_scripts_say_only_what_is_replaced():
    """A call that is left in a script would break it in the browser."""
    from ssl_demo.ui import guess_first, how_it_learned, lecture_script, story, toasts, walk_strip

    for script in (guess_first.PRESSED, how_it_learned.PLAY, lecture_script.SCRIPT, story.CLICKS, toasts.SAY, walk_strip.WALK):
        assert "say(" not in script


def test_a_language_that_is_not_there_is_named_at_the_start():
    process = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env={**os.environ, "SSL_DEMO_LANGUAGE": "xx"}, text=True,
                             capture_output=True, timeout=120)
    assert process.returncode == 2 and process.stdout == "" and len(process.stderr.strip().splitlines()) == 1
    assert "xx" in process.stderr and all(language in process.stderr for language in languages())


def test_collector_reads_calls_scripts_and_mistakes():
    source = '''say("a" if x else f"b {n}")\nS = in_script("f(say('in a script'))")\nlater(f"{name.title} waits")
raise ValueError(f"“{self.name}” is {len(rows[0])} long.")\n'''
    tree = ast.parse(source)
    assert [*collector.calls(tree)] == ["a", "b {n}", "in a script"]
    assert sorted(collector.made(tree, True)) == ["{title} waits", "“{name}” is {rows} long."]
    assert [*collector.made(tree, False)] == ["{title} waits"]
