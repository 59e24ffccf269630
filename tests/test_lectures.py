"""Lectures: lists of prepared states, from files, pasted lines and addresses."""

from urllib.parse import parse_qsl

import numpy as np
import pytest

from ssl_demo import inference
from ssl_demo.examples import EXAMPLES
from ssl_demo.pretext import all_tasks
from ssl_demo.ui import lectures, links
from ssl_demo.ui.lectures import State

TASK = next(iter(all_tasks()))


def test_the_shipped_lecture_walks_through_the_methods():
    assert "methods" in lectures.names()
    states = lectures.open_lecture("methods")
    places = [links.read(dict(parse_qsl(state.link[1:]))) for state in states]
    families = {all_tasks()[place.task].card.family for place in places if place.task}
    assert 8 <= len(states) <= 12 and len(families) == 3 and len({state.title for state in states}) == len(states)


def test_a_host_keeps_lectures_in_a_folder_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "monday.yaml").write_text(f"- title: First\n  link: ?task={TASK}&photo=coffee\n- link: ?room=transfer\n")
    monkeypatch.setenv("SSL_DEMO_LECTURES", str(tmp_path))
    assert lectures.names() == ["monday", "methods"]
    assert lectures.open_lecture("monday") == [State("First", f"?task={TASK}&photo=coffee"), State("Transfer", "?room=transfer")]


@pytest.mark.parametrize("text, says", [
    ("- title: [\n", "line 2 is not YAML"), ("just words", "must be a list"), ("- title: A\n", "`link`"), ("[]", "from 1 to"),
    ("- link: ?room=transfer\n- link: ?task=nothing\n", "State 2 .*“nothing”"),
])
def test_a_bad_file_is_named_in_one_sentence(text, says):
    with pytest.raises(ValueError, match=says) as error:
        lectures.read_yaml(text, "bad")
    assert "“bad”" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nothing", "../methods", "", "a" * 99, "~", "~abc", "~" + "A" * 9000])
def test_an_address_that_means_no_lecture_is_told(name):
    with pytest.raises(ValueError) as error:
        lectures.open_lecture(name)
    assert len(str(error.value)) < 200


def test_pasted_links_travel_in_one_address():
    states = lectures.pasted(f"""
        http://127.0.0.1:7860/?task={TASK}&photo=coffee&seed=3
        Before it learned: ?task={TASK}&network=untrained

        “Ünïcode & <b>” | https://host/app/?room=overview&photo=rocket#part
    """)
    assert states == [State(all_tasks()[TASK].card.title, f"?task={TASK}&photo=coffee&seed=3"),
                      State("Before it learned", f"?task={TASK}&network=untrained"),
                      State("“Ünïcode & <b>”", "?room=overview&photo=rocket")]
    value = lectures.pack(states)
    assert lectures.open_lecture(value) == states
    assert dict(parse_qsl(f"lecture={value}")) == {"lecture": value}, "nothing in it needs escaping"


@pytest.mark.parametrize("text, says", [
    (f"?task={TASK}\n\nhttps://elsewhere.org/", "Line 3: .*no link"), ("no link at all", "Line 1: "), ("", "from 1 to"),
    (f"?task={TASK}\n?task={TASK}&seed=-1", "Line 2: .*seed"), ("?room=cellar", "Line 1: .*“cellar”"),
    (f"?task={TASK}&photo=mine", "Line 1: .*“mine”"), ("?lecture=methods", "Line 1: .*no link"),
    (f"?task={TASK}\n" * 101, "from 1 to 100"),
])
def test_a_bad_line_is_named(text, says):
    with pytest.raises(ValueError, match=says):
        lectures.pasted(text)


def test_what_is_too_long_for_an_address_is_refused():
    random = np.random.default_rng(0)  # what chance wrote cannot be packed small
    states = [State(random.bytes(50).hex(), f"?task={TASK}") for _ in range(lectures.MOST_STATES)]
    with pytest.raises(ValueError, match="too long"):
        lectures.pack(states)


def test_rooms_have_links():
    assert links.read({"room": "lab"}).room == "lab" and links.read({"room": "overview", "photo": "coffee"}).photo == "coffee"
    for parameters in ({"room": "cellar"}, {"room": "lab", "photo": "/etc/passwd"}):
        with pytest.raises(ValueError, match="none of the"):
            links.read(parameters)


def test_the_shipped_lecture_shows_that_learning_matters():
    """Its second and third state ask a trained and an untrained network the same question."""
    states = [links.read(dict(parse_qsl(state.link.partition("?")[2]))) for state in lectures.open_lecture("methods")[1:3]]
    assert [state.network for state in states] == ["", "untrained"] and states[0].controls == states[1].controls
    photo = next(example.image for example in EXAMPLES if example.name == states[0].photo)
    networks = [inference.load(state.task, state.network or None) for state in states]
    assert [network.run(photo, **states[0].controls).figures["correct"].value for network in networks] == [True, False]
