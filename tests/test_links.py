"""Links to what is on a tab: short, and back to the same."""

import shlex
from types import SimpleNamespace
from urllib.parse import parse_qsl

import numpy as np
import pytest
from PIL import Image

from ssl_demo import cli
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
    changed = {c.name: c.minimum for c in task.controls if c.kind == "slider"}
    changed |= {c.name: c.choices[-1] for c in task.controls if c.kind == "choice"}
    changed |= {c.name: not c.default for c in task.controls if c.kind == "toggle"}
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


def test_what_to_type_elsewhere_names_the_file_of_an_own_network():
    calls = links.calls(all_tasks()["mae"], 0, "my one", {})
    assert calls == {"Command line": "python -m ssl_demo run mae photo.jpg --weights FILE.safetensors --out out",
                     "Python": "ssl_demo.load('mae', 'FILE.safetensors').run('photo.jpg')"}


@pytest.mark.parametrize("name", all_tasks())
def test_what_to_type_elsewhere_asks_for_the_same(name, monkeypatch):
    """The command is parsed by the real command line, the Python is evaluated: both must ask for what the tab shows."""
    task = all_tasks()[name]
    slider = next((c for c in task.controls if c.kind == "slider"), None)
    controls = {slider.name: slider.maximum} if slider else {}
    calls = links.calls(task, 5, "untrained", controls)
    options = cli._parser().parse_args(shlex.split(calls["Command line"])[3:])
    assert (options.task, options.seed, options.weights) == (name, 5, "untrained")
    assert parse_controls(task, cli._pairs(options.set)) == parse_controls(task, controls)
    asked = {}

    def run(file, seed, **values):
        asked.update(values, seed=seed)

    loaded = SimpleNamespace(load=lambda *names: asked.update(names=names) or SimpleNamespace(run=run))
    eval(calls["Python"], {"ssl_demo": loaded})
    assert asked.pop("names") == (name, "untrained") and asked.pop("seed") == 5
    assert parse_controls(task, asked) == parse_controls(task, controls)
    sent = {}
    client = SimpleNamespace(predict=lambda **values: sent.update(values))
    eval(calls["HTTP"], {"Client": lambda address: client, "ADDRESS": "", "handle_file": str})
    assert [sent.pop(key) for key in ("api_name", "network", "seed")] == [f"/{name}", "untrained", 5] and sent.pop("file")
    assert parse_controls(task, sent) == parse_controls(task, controls)


def test_a_link_opens_transfer_on_a_setting_and_names_one_that_is_not_there():
    place = links.read({"room": "transfer", "photo": "coffee", "neighbours": "5", "map": "PCA", "utm": "x"})
    assert (place.room, place.controls) == ("transfer", {"neighbours": 5, "map": "PCA"})
    assert links.read({"room": "lab", "map": "nowhere"}).controls == {}, "another room has no such setting"
    for name, value in (("neighbours", "0"), ("map", "globe"), ("encoder", "nobody"), ("labels", "many")):
        with pytest.raises(ValueError, match=f"“{name}”"):
            links.read({"room": "transfer", name: value})
