"""Links to what is on a tab: short, and back to the same."""

from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image

from ssl_demo.examples import EXAMPLES, name_of
from ssl_demo.pretext import all_tasks, parse_controls
from ssl_demo.ui import links

COFFEE = next(example.image for example in EXAMPLES if example.name == "coffee")


def back(query):
    return links.read(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


@pytest.mark.parametrize("name", all_tasks())
def test_a_link_leads_back(name):
    task = all_tasks()[name]
    assert links.query(task, COFFEE, 0, "trained", {}) == f"?task={name}&photo=coffee", "what is as at first is not written"
    changed = {}
    for control in task.controls:
        if control.kind in ("slider", "choice", "toggle"):
            values = {"slider": control.minimum, "choice": (*control.choices, "")[-2], "toggle": control.default is not True}
            changed[control.name] = values[control.kind]
    place = back(links.query(task, COFFEE, 7, "untrained", changed))
    assert (place.task, place.photo, place.seed, place.network) == (name, "coffee", 7, "untrained")
    assert parse_controls(task, place.controls) == parse_controls(task, changed)


def test_a_control_set_to_nothing_is_written_where_that_is_a_change():
    task = next(task for task in all_tasks().values() if any(c.kind == "point" and c.default for c in task.controls))
    control = next(c for c in task.controls if c.kind == "point" and c.default)
    assert back(links.query(task, COFFEE, 0, None, {control.name: ""})).controls == {control.name: ""}


def test_only_examples_have_a_name():
    for example in EXAMPLES:
        assert name_of(example.image) == example.name and name_of(example.image.copy()) == example.name
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*COFFEE.size[::-1], 3), np.uint8))
    assert name_of(noise) is None and name_of(None) is None
    task = next(iter(all_tasks().values()))
    assert "photo" not in links.query(task, noise, 0, None, {}) and "Yours" not in links.query(task, noise, 0, "My run", {})


def test_links_of_others_and_bad_links():
    name = next(iter(all_tasks()))
    assert links.read({}) is None and links.read({"__theme": "dark"}) is None
    assert links.read({"task": name, "utm": "x"}).controls == {}
    for parameters, word in (({"task": "nothing"}, "nothing"), ({"task": name, "photo": "/etc/passwd"}, "passwd"),
                             ({"task": name, "seed": "-1"}, "seed")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            links.read(parameters)
