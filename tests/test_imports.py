"""Imports run one way, and a task is found from its file alone. Read from the source; nothing here needs a network."""

import ast
import functools
import graphlib
import json
import sys
from pathlib import Path

import pytest

import ssl_demo
from ssl_demo import cli, pretext, tasks

PACKAGE = Path(ssl_demo.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), PACKAGE.parent / "app.py"])

# A file may import from its own row or from rows below.
LAYERS = (
    {"app"},
    {"ssl_demo.ui"},
    {"ssl_demo", "ssl_demo.__main__", "ssl_demo.cli", "ssl_demo.bench", "ssl_demo.inference", "ssl_demo.training",
     "ssl_demo.transfer", "ssl_demo.finetuning", "ssl_demo.checkpoints", "ssl_demo.embedding", "ssl_demo.live",
     "ssl_demo.live_data", "ssl_demo.live_plan", "ssl_demo.live_watch", "ssl_demo.shipped_features", "ssl_demo.live_transfer",
     "ssl_demo.charts", "ssl_demo.teach", "ssl_demo.walk", "ssl_demo.comparison", "ssl_demo.own_features", "ssl_demo.learned"},
    {"ssl_demo.tasks"},
    {"ssl_demo.pretext", "ssl_demo.nets", "ssl_demo.baselines", "ssl_demo.images", "ssl_demo.video", "ssl_demo.data",
     "ssl_demo.drawing", "ssl_demo.figures", "ssl_demo.progress", "ssl_demo.torchvision_ops", "ssl_demo.lab",
     "ssl_demo.lab_drawing", "ssl_demo.color_nets", "ssl_demo.clips", "ssl_demo.masks", "ssl_demo.pointers", "ssl_demo.examples",
     "ssl_demo.contrastive", "ssl_demo.views", "ssl_demo.patch_nets", "ssl_demo.vit", "ssl_demo.momentum", "ssl_demo.labelled",
     "ssl_demo.probes", "ssl_demo.distributed", "ssl_demo.streaming", "ssl_demo.muon", "ssl_demo.questions",
     "ssl_demo.own_networks", "ssl_demo.texts"},
)  # fmt: skip


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imported(path):
    """Every module a file imports, at its top or inside a function, as absolute names."""
    return list(_imported(path))


def _imported(path):
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                below = PACKAGE.parent.joinpath(*source.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").is_file()
                yield f"{source}.{alias.name}" if is_module else source


def layer(name):
    """The number of the row a module stands in; 0 is the top."""
    for number, row in enumerate(LAYERS):
        if name in row or name.rpartition(".")[0] in row - {"ssl_demo"}:
            return number
    raise AssertionError(f"{name} stands in no row of LAYERS: say where it belongs")


def ours(path):
    return {name for name in imported(path) if name.split(".")[0] in ("ssl_demo", "app")}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_one_way(path):
    name = module_name(path)
    assert {other for other in ours(path) if layer(other) < layer(name)} == set()


def test_no_circle():
    """Also not inside a row. `ssl_demo` itself is left out: whoever imports a part of it has imported it."""
    graph = {module_name(path): ours(path) - {"ssl_demo", "ssl_demo.tasks"} for path in FILES}
    graph.pop("ssl_demo")
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "tasks"], ids=module_name)
def test_no_task_imports_another(path):
    assert not [other for other in ours(path) if other.startswith("ssl_demo.tasks")]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_gradio_stays_in_the_interface(path):
    outside = path.parent.name != "ui" and path.name != "app.py"
    foreign = {name.split(".")[0] for name in imported(path)}
    assert not (outside and foreign & {"gradio", "gradio_client", "spaces"})


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_drawer_for_odds_and_ends(path):
    assert path.stem not in ("utils", "misc", "helpers", "common")


def test_reader_of_imports(tmp_path, monkeypatch):
    """The functions above do see what they are to forbid."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "ssl_demo")
    path = tmp_path / "ssl_demo/tasks/bad.py"
    path.parent.mkdir(parents=True)
    (path.parent / "mae.py").touch()
    path.write_text(
        "from . import mae\nfrom ..tasks.mae import MAE\ndef f():\n    import gradio as gr\n    from .. import inference\n"
    )
    assert set(_imported(path)) == {"ssl_demo.tasks.mae", "gradio", "ssl_demo"}
    (path.parent.parent / "inference.py").touch()
    assert "ssl_demo.inference" in set(_imported(path)) and layer("ssl_demo.inference") < layer("ssl_demo.tasks.bad")


# The registry


@pytest.fixture
def put_task(tmp_path, monkeypatch):
    """put_task(file name, source): one more file in `ssl_demo/tasks`, for the time of a test."""
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    monkeypatch.setattr(pretext._registry, "tasks", {})
    names = []

    def put_task(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        names.append(name)

    yield put_task
    for name in names:
        sys.modules.pop(f"ssl_demo.tasks.{name}", None)
        vars(tasks).pop(name, None)


ROTATION = (PACKAGE / "tasks/rotation.py").read_text()


def test_a_file_is_all_it_takes(put_task, no_weights, capsys, photo, tmp_path):
    put_task("upside_down", ROTATION.replace('name="rotation"', 'name="upside_down"').replace("year=2018", "year=2031"))
    found = list(pretext.all_tasks())
    assert "upside_down" in found and "rotation" in found
    assert found.index("upside_down") > found.index("rotation"), "ordered by family and year, not by file"
    assert cli.main(["list", "--json"]) == 0
    assert "upside_down" in [task["name"] for task in json.loads(capsys.readouterr().out)["tasks"]]
    photo.save(tmp_path / "photo.jpg")
    assert cli.main(["run", "upside_down", str(tmp_path / "photo.jpg"), "--weights", "untrained", "--set", "angle=180",
                     "--out", str(tmp_path / "out"), "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["numbers"]["truth"] == 180


def test_two_tasks_of_one_name_are_an_error(put_task):
    put_task("twin", ROTATION)
    with pytest.raises(KeyError, match="two tasks are named rotation"):
        pretext.all_tasks()


def test_tasks_are_ordered_by_family_then_year():
    cards = [task.card for task in pretext.all_tasks().values()]
    assert cards == sorted(cards, key=lambda card: (pretext.FAMILIES.index(card.family), card.year, card.name))
    assert all(name == task.card.name for name, task in pretext.all_tasks().items())
