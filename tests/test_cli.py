"""The command line: one JSON object on standard output, and for every mistake exit status 2 with one line and no traceback."""

import dataclasses
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL
from PIL import Image
from safetensors.torch import load_file, save_file

from ssl_demo import bench, cli
from ssl_demo.checkpoints import load_weights, read_card, save_weights, sha256
from ssl_demo.pretext import all_tasks, create
from ssl_demo.video import encode_mp4, load_clip

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def call(capsys):
    """call(arguments): the JSON object that a command prints, and nothing else may be on standard output."""

    def call(*arguments):
        status = cli.main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        assert status == 0, err
        assert out.count("\n") == 1 and out.endswith("\n")
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return call


@pytest.fixture
def refused(capsys):
    """refused(arguments): the one line of a command that ends with exit status 2."""

    def refused(*arguments):
        status = cli.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert status == 2 and out == ""
        lines = [
            line for line in re.split(r"[\r\n]+", err) if line.strip() and not re.match(r"\w+ +\d+% |decoding photos", line)
        ]  # without the bars
        assert len(lines) == 1 and lines[0].startswith("ssl_demo: ") and "Traceback" not in err, err
        return lines[0]

    return refused


@pytest.fixture
def file(photo, tmp_path):
    path = tmp_path / "photo.png"
    photo.resize((160, 120)).save(path)
    return path


@pytest.fixture
def file_for(file, clip, tmp_path):
    """file_for(task): something to run it on."""
    (tmp_path / "clip.mp4").write_bytes(encode_mp4(clip.frames[:8], clip.fps))
    return lambda name: tmp_path / "clip.mp4" if all_tasks()[name].card.input == "video" else file


@pytest.fixture
def data_for(folder, clip_folder):
    """data_for(task): where there is something to train and to measure it on."""
    return lambda name: clip_folder if all_tasks()[name].card.input == "video" else folder


@pytest.fixture(scope="module")
def made_weights(tmp_path_factory):
    """For every task a measured file and one without a score. Not to be changed."""
    folder = tmp_path_factory.mktemp("weights")
    for name in all_tasks():
        task = create(name)
        torch.manual_seed(0)
        heldout = {"score": 0.6, "chance": 0.123, "untrained": 0.3, "images": 5, "command": "..."}
        save_weights(folder / f"{name}-small.safetensors", task, task.build(), {"heldout": heldout})
        save_weights(folder / f"{name}-new.safetensors", task, task.build(), {})
    return folder


@pytest.fixture
def two_weights(made_weights, weights_in):
    """Such files in place of the bundled weights; returns the folder."""
    return weights_in(made_weights)


# list


def test_list_without_weights(call, no_weights):
    tasks = call("list")["tasks"]
    assert [task["name"] for task in tasks] == list(all_tasks())
    for task in tasks:
        card = all_tasks()[task["name"]].card
        assert {key: task[key] for key in ("title", "year", "family", "metric")} == {
            "title": card.title, "year": card.year, "family": card.family, "metric": card.metric}  # fmt: skip
        assert task["weights"] == []
        assert task["chance"] == (None if isinstance(card.chance, str) else card.chance), "what nobody measured is not told"


def test_list_with_weights(call, two_weights):
    for task in call("list")["tasks"]:
        first, second = task["weights"]
        path = two_weights / f"{task['name']}-small.safetensors"
        params = sum(p.numel() for p in create(task["name"]).build().parameters())
        assert first == {"name": path.stem, "bundled": True, "params": params, "bytes": path.stat().st_size, "score": 0.6}
        assert second["name"] == f"{task['name']}-new" and second["score"] is None
        chance = all_tasks()[task["name"]].card.chance
        assert task["chance"] == (0.123 if isinstance(chance, str) else chance), "measured beside the best weights' score"


def test_list_for_a_person(capsys, no_weights):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"name: {name}" in out for name in all_tasks()) and not out.startswith("{")


def test_list_in_a_process_of_its_own():
    """It imports every task, and nothing that is slow to import and not needed before there is a photo."""
    command = [sys.executable, "-X", "importtime", "-m", "ssl_demo", "list", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"torch", "ssl_demo"} <= imported and not imported & {"kornia", "gradio", "sklearn", "plotly", "pandas"}
    assert done.returncode == 0 and [task["name"] for task in json.loads(done.stdout)["tasks"]] == list(all_tasks())


def test_the_status_of_a_mistake_is_that_of_the_process(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ssl_demo", "lists"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("ssl_demo", run_name="__main__")
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 1


# run


@pytest.mark.parametrize("name", all_tasks())
def test_run(name, call, file_for, tmp_path, two_weights):
    report = call("run", name, file_for(name), "--seed", 3, "--out", tmp_path / "one")
    assert report.keys() == {"task", "weights", "seed", "controls", "numbers", "panels", "milliseconds"}
    assert (report["task"], report["weights"], report["seed"]) == (name, f"{name}-small", 3)
    assert report["controls"] == {control.name: control.default for control in all_tasks()[name].controls}
    assert report["numbers"] and report["milliseconds"] > 0
    assert {Path(panel["file"]) for panel in report["panels"]} == set((tmp_path / "one").iterdir())
    for panel in report["panels"]:
        if panel["file"].endswith(".mp4"):
            assert len(load_clip(panel["file"]).frames) == 8 and panel["title"]
            continue
        with Image.open(panel["file"]) as image:
            assert image.format == "PNG" and image.mode == "RGB" and image.width >= 384 and panel["title"]


@pytest.mark.parametrize("name", all_tasks())
def test_same_seed_same_files(name, call, file_for, tmp_path, no_weights):
    arguments = ["run", name, file_for(name), "--seed", 5, "--weights", "untrained"]
    reports = [call(*arguments, "--out", tmp_path / folder) for folder in "ab"]
    assert reports[0]["weights"] == "untrained"
    files = [[Path(panel["file"]) for panel in report["panels"]] for report in reports]
    assert [path.name for path in files[0]] == [path.name for path in files[1]] and len(files[0]) > 2
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_run_with_controls_and_another_file_of_weights(call, file, tmp_path, two_weights):
    report = call("run", "rotation", file, "--weights", two_weights / "rotation-new.safetensors", "--set", "angle=270",
                  "resolution=64", "--out", tmp_path / "out")  # fmt: skip
    assert report["weights"] == "rotation-new" and report["controls"] == {"angle": "270", "resolution": 64, "mark": False}
    assert report["numbers"]["truth"] == 270
    report = call("run", "mae", file, "--set", "kind=by hand", "--set", "patches=3,4", "--out", tmp_path / "out")
    assert report["numbers"]["tokens"] == report["numbers"]["tokens_all"] - 2


@pytest.mark.parametrize(
    "arguments, word",
    [(["nothing", "FILE", "--out", "OUT"], "nothing"),
     (["nothing", "FILE", "--weights", "untrained", "--out", "OUT"], "nothing"),
     (["rotation", "gone.jpg", "--out", "OUT"], "gone.jpg"),
     (["rotation", "TEXT", "--out", "OUT"], "text file"),
     (["rotation", "DIR", "--out", "OUT"], "folder"),
     (["rotation", "FILE", "--out", "TEXT"], "cannot be made"),
     (["rotation", "FILE"], "--out"),
     (["rotation", "--out", "OUT"], "FILE"),
     (["rotation", "FILE", "--seed", "-1", "--out", "OUT"], "seed"),
     (["rotation", "FILE", "--seed", "x", "--out", "OUT"], "seed"),
     (["rotation", "FILE", "--set", "angle=45", "--out", "OUT"], "angle"),
     (["rotation", "FILE", "--set", "angle", "--out", "OUT"], "name=value"),
     (["rotation", "FILE", "--set", "zoom=1", "--out", "OUT"], "zoom"),
     (["rotation", "FILE", "--set", "resolution=7", "--out", "OUT"], "between 48 and 192"),
     (["mae", "FILE", "--set", "kind=by hand", "patches=9999", "--out", "OUT"], "no patch 9999"),
     (["rotation", "FILE", "--weights", "best", "--out", "OUT"], "best"),
     (["rotation", "FILE", "--weights", "gone.safetensors", "--out", "OUT"], "gone.safetensors"),
     (["rotation", "FILE", "--weights", "WEIGHTS/mae-new.safetensors", "--out", "OUT"], "of mae"),
     (["rotation", "FILE", "--speed", "9", "--out", "OUT"], "--speed")],
)  # fmt: skip
def test_run_refuses(refused, arguments, word, file, tmp_path, two_weights):
    (tmp_path / "notes.jpg").write_text("not a photo")
    places = {"FILE": str(file), "OUT": str(tmp_path / "out"), "TEXT": str(tmp_path / "notes.jpg"), "DIR": str(tmp_path)}
    arguments = [places.get(argument, argument.replace("WEIGHTS", str(two_weights))) for argument in arguments]
    assert word in refused("run", *arguments)
    assert not (tmp_path / "out").exists(), "a refused run leaves nothing behind"


def test_missing_weights_are_no_reason_to_guess(refused, file, tmp_path, no_weights, folder):
    for name in all_tasks():
        assert "There are no weights" in refused("run", name, file, "--out", tmp_path / "out")
        assert "There are no weights" in refused("evaluate", name, "--data", folder)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["list", "--loud"], ["list", "more"], ["train"], ["evaluate", "mae"]])
def test_wrong_commands(refused, arguments):
    assert "--help" in refused(*arguments)


# evaluate


@pytest.mark.parametrize("name", all_tasks())
def test_evaluate(name, call, data_for, two_weights):
    folder = data_for(name)
    report = call("evaluate", name, "--data", folder, "--limit", 6, "--seed", 1)
    card = all_tasks()[name].card
    assert report.keys() == {"task", "weights", "images", "metric", "score", "chance", "untrained", "metrics"}
    assert (report["task"], report["weights"], report["images"], report["metric"]) == (name, f"{name}-small", 6, card.metric)
    assert report["score"] == report["metrics"][card.metric]
    assert report["chance"] == (report["metrics"][card.chance] if isinstance(card.chance, str) else card.chance)
    assert all(math.isfinite(report[key]) for key in ("score", "chance", "untrained"))
    assert call("evaluate", name, "--data", folder, "--limit", 6, "--seed", 1) == report
    fresh = call("evaluate", name, "--data", folder, "--limit", 6, "--seed", 1, "--weights", "untrained")
    assert fresh["weights"] == "untrained" and fresh["score"] == fresh["untrained"] == report["untrained"]


KEYS = {"rotation": {"classes"}, "relative_patch": {"classes"}, "jigsaw": {"classes"},
        "inpainting": {"psnr_mean_color", "psnr_classical", "l1_hidden"},
        **dict.fromkeys(("colorization", "split_brain"), {"auc_rebalanced", "ab_rmse", "auc_gray", "auc_gray_rebalanced"}),
        "video_color": {"j", "f", "j_and_f_identity", "ab_rmse"},
        "mae": {"mse_mean_color", "mse_smooth", "ratio_to_smooth"},
        **dict.fromkeys(("simclr", "moco", "cpc", "dino"),
                        {"candidates", "alignment", "uniformity", "feature_spread"})}  # fmt: skip


@pytest.mark.parametrize("name", all_tasks())
def test_metrics_of_the_contract(name, call, data_for, no_weights):
    metrics = call("evaluate", name, "--data", data_for(name), "--limit", 2, "--weights", "untrained")["metrics"]
    assert KEYS.get(name, set()) <= metrics.keys() and len(metrics) > 1


def test_record_writes_the_score_into_the_card(call, folder, made_weights, no_weights, refused):
    for kind in ("safetensors", "json"):
        shutil.copy(made_weights / f"mae-new.{kind}", no_weights)
    path = no_weights / "mae-new.safetensors"
    report = call("evaluate", "mae", "--data", folder, "--limit", 3, "--weights", "mae-new", "--record")
    heldout = read_card(path)["heldout"]
    assert heldout["score"] == report["score"] and heldout["images"] == 3 and heldout["data"] == [folder.name]
    assert heldout["command"].startswith("python -m ssl_demo evaluate mae") and "--record" not in heldout["command"]
    assert read_card(path)["sha256"] == sha256(path)
    assert "no card" in refused("evaluate", "mae", "--data", folder, "--weights", "untrained", "--record")


@pytest.mark.parametrize(
    "arguments, word",
    [(["--data", "gone"], "gone"), (["--data", "EMPTY"], "no pictures"), (["--data", "DATA", "--limit", "0"], "at least 1"),
     (["--data", "DATA", "--seed", "1.5"], "seed"), (["--data"], "--data"), (["--data", "TAR"], "bad.tar")],
)  # fmt: skip
def test_evaluate_refuses(refused, arguments, word, folder, tmp_path, two_weights):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.tar").write_bytes(b"nothing of a tar file" * 50)
    places = {"DATA": str(folder), "EMPTY": str(tmp_path / "empty"), "TAR": str(tmp_path / "bad.tar")}
    assert word in refused("evaluate", "rotation", *(places.get(argument, argument) for argument in arguments))


# train


@pytest.mark.parametrize("name", SMALL)
def test_train(name, call, data_for, tmp_path, file_for, no_weights):
    folder, file, photos = data_for(name), file_for(name), 6 if all_tasks()[name].card.input == "video" else 32
    out = tmp_path / "new" / f"{name}-tiny.safetensors"
    report = call("train", name, "--data", folder, "--steps", 3, "--out", out, "--config", "batch=4", *SMALL[name])
    assert report.keys() == {
        "task",
        "steps",
        "images_seen",
        "images_per_second",
        "minutes",
        "loss_first",
        "loss_last",
        "score",
        "file",
    }
    assert (report["task"], report["steps"], report["images_seen"], report["file"]) == (name, 3, 12, str(out))
    assert all(math.isfinite(report[key]) for key in ("loss_first", "loss_last", "score")) and report["images_per_second"] > 0
    card = read_card(out)
    assert card["sha256"] == sha256(out) and card["bytes"] == out.stat().st_size
    assert f"size={card['config']['size']}" in SMALL[name]
    assert (card["steps"], card["images_seen"], card["seed"], card["photos"], card["data"]) == (3, 12, 0, photos, [folder.name])
    assert (
        card["command"].startswith(f"python -m ssl_demo train {name} --data") and card["machine"] and card["recipe"]["batch"] == 4
    )
    assert card["sources"] == {}, "these photos lie in no folders of sets"
    assert card["curve"][0]["step"] == 1 and card["curve"][-1]["step"] == 3 and card["validation"]["score"] == report["score"]
    assert "heldout" not in card, "only `evaluate --record` says how good it is"
    used = call("run", name, file, "--weights", out, "--out", tmp_path / "panels")
    assert used["weights"] == out.stem


def test_train_keeps_a_history(call, folder, tmp_path):
    history = tmp_path / "a.history"
    history.mkdir()
    (history / "0000064.safetensors").write_bytes(b"of an earlier run")
    arguments = ["--data", folder, "--out", tmp_path / "a.safetensors", "--history", "--config", "batch=4", *SMALL["mae"]]
    call("train", "mae", "--steps", 5, *arguments)
    assert sorted(path.name for path in history.glob("*.safetensors")) == [f"000000{step}.safetensors" for step in (1, 2, 4)]
    (_, first), (_, last) = (load_weights("mae", path) for path in (history / "0000001.safetensors", tmp_path / "a.safetensors"))
    assert not torch.equal(first.to_pixels.weight, last.to_pixels.weight)


def test_train_begins_with_other_weights(call, refused, folder, tmp_path):
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    arguments = ["train", "mae", "--data", folder, "--config", "batch=4", *SMALL["mae"]]
    call(*arguments, "--steps", 2, "--out", first)
    call(*arguments, "--steps", 1, "--out", second, "--start", first, "--config", "lr=1e-9")
    (_, begun), (_, on) = load_weights("mae", first), load_weights("mae", second)
    assert torch.allclose(begun.to_pixels.weight, on.to_pixels.weight, atol=1e-3), "it did not begin there"
    before = read_card(second)["before"]
    assert (before["weights"], before["sha256"], before["steps"], before["images_seen"]) == ("a", sha256(first), 2, 8)
    call(*arguments, "--steps", 1, "--out", third, "--start", second)
    before = read_card(third)["before"]
    assert (before["steps"], before["images_seen"]) == (3, 12) and len(before["commands"]) == 2
    other = [*arguments, "width=64", "--steps", 1, "--out", tmp_path / "d.safetensors"]
    assert "another network" in refused(*other, "--start", first)


def test_train_goes_on(call, refused, folder, tmp_path):
    arguments = ["train", "mae", "--data", folder, "--out", tmp_path / "a.safetensors", "--config", "batch=4", *SMALL["mae"]]
    call(*arguments, "--steps", 2)
    longer = call(*arguments, "--steps", 4, "--resume", tmp_path / "a.checkpoint")
    assert longer["steps"] == 4 and longer["images_seen"] == 16
    (tmp_path / "a.safetensors").unlink()  # as if killed between the last step and the weights
    again = call(*arguments, "--steps", 4, "--resume", tmp_path / "a.checkpoint")
    assert again["steps"] == 4 and again["loss_last"] == longer["loss_last"]
    assert (tmp_path / "a.safetensors").is_file() and again["score"] == longer["score"]
    assert "seed 0" in refused(*arguments, "--steps", 9, "--seed", 1, "--resume", tmp_path / "a.checkpoint")


@pytest.mark.parametrize("steps", [2, 3])
def test_train_goes_on_under_another_name(call, folder, tmp_path, steps):
    """Its curve begins where the first run did; with the log of that one lost, there is none before it."""
    arguments = ["train", "mae", "--data", folder, "--config", "batch=4", *SMALL["mae"]]
    first = call(*arguments, "--steps", 2, "--out", tmp_path / "a.safetensors")
    resumed = [*arguments, "--steps", steps, "--resume", tmp_path / "a.checkpoint"]
    second = call(*resumed, "--out", tmp_path / "b.safetensors")
    curve = read_card(tmp_path / "b.safetensors")["curve"]
    assert second["loss_first"] == first["loss_first"] and [point["step"] for point in curve] == sorted({1, 2, steps})
    (tmp_path / "a.jsonl").unlink()
    third = call(*resumed, "--out", tmp_path / "c.safetensors")
    curve = read_card(tmp_path / "c.safetensors")["curve"]
    assert third["steps"] == steps and [point["step"] for point in curve] == list(range(3, steps + 1))
    assert third["loss_first"] == (curve[0]["loss"] if curve else None)


@pytest.mark.parametrize(
    "arguments, word",
    [(["nothing", "--data", "DATA", "--steps", "1"], "nothing"),
     (["mae", "--data", "DATA"], "--steps"),
     (["mae", "--steps", "1"], "--data"),
     (["mae", "--data", "gone", "--steps", "1"], "gone"),
     (["mae", "--data", "DATA", "--steps", "1", "--minutes", "1"], "not allowed with"),
     (["mae", "--data", "DATA", "--steps", "0"], "at least 1"),
     (["mae", "--data", "DATA", "--steps", "many"], "many"),
     (["mae", "--data", "DATA", "--minutes", "nan"], "nan"),
     (["mae", "--data", "DATA", "--minutes", "-1"], "-1"),
     (["mae", "--data", "DATA", "--steps", "1", "--out", "OUT.pt"], ".safetensors"),
     (["mae", "--data", "DATA", "--steps", "1", "--config", "speed=1"], "speed"),
     (["mae", "--data", "DATA", "--steps", "1", "--config", "width"], "name=value"),
     (["mae", "--data", "DATA", "--steps", "1", "--config", "width=wide"], "width"),
     (["mae", "--data", "DATA", "--steps", "1", "--config", "heads=7"], "network"),
     (["mae", "--data", "DATA", "--steps", "1", "--config", "crop=[3,4]"], "crop"),
     (["mae", "--data", "DATA", "--steps", "1", "--config", "batch=-4"], "batch"),
     (["mae", "--data", "DATA", "--steps", "1", "--resume", "gone.checkpoint"], "gone.checkpoint"),
     (["mae", "--data", "DATA", "--steps", "1", "--threads", "0"], "at least 1"),
     (["mae", "--data", "DATA", "--steps", "60", "--config", "lr=1e30", "clip=1e30", "batch=2", "precision=float32"],
      "learning rate")],
)  # fmt: skip
def test_train_refuses(refused, arguments, word, folder, tmp_path):
    out = tmp_path / "out.safetensors"
    arguments = [argument.replace("DATA", str(folder)).replace("OUT", str(tmp_path / "x")) for argument in arguments]
    arguments += [] if "--out" in arguments else ["--out", str(out)]
    if "lr=1e30" in arguments:
        arguments += ["--config", *SMALL["mae"]]
    assert word in refused("train", *arguments) and not out.exists()


def test_where_nothing_can_be_written(refused, folder, file, tmp_path, no_weights):
    (tmp_path / "taken.safetensors").mkdir()
    line = refused("train", "mae", "--data", folder, "--steps", 1, "--out", tmp_path / "taken.safetensors")
    assert "must name a .safetensors file" in line
    (tmp_path / "out/rotation-photo.png").mkdir(parents=True)
    line = refused("run", "rotation", file, "--weights", "untrained", "--out", tmp_path / "out")
    assert "cannot be used (Is a directory)" in line


def test_interrupted(capsys, monkeypatch, folder, tmp_path):
    """Control-C while it trains: status 130, no traceback, and the way to go on."""

    def interrupt(*arguments, **named):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("ssl_demo.training.train", interrupt)
    out = tmp_path / "a.safetensors"
    assert cli.main(["train", "mae", "--data", str(folder), "--steps", "5", "--out", str(out)]) == 130
    captured = capsys.readouterr()
    assert captured.out == "" and f"--resume {tmp_path / 'a.checkpoint'}" in captured.err and "Traceback" not in captured.err


# bench


def test_bench(call, monkeypatch, no_weights):
    monkeypatch.setattr(bench, "RUNS", 3)
    monkeypatch.setattr(bench.gemm_rate, "__defaults__", (128,))  # a product of the real size takes seconds here
    monkeypatch.setattr(all_tasks()["mae"], "recipe", dataclasses.replace(all_tasks()["mae"].recipe, batch=4))
    report = call("bench", "--seconds", "0.01", "--tasks", "mae")
    assert report["device"] == "cpu" and report["threads"] == torch.get_num_threads() and report["gemm_gflops"] > 0
    (row,) = report["tasks"]
    assert row["name"] == "mae" and 0 < row["run_ms_p50"] <= row["run_ms_p95"]
    assert row["train_images_per_second"] > 0 and row["train_gflops_share"] > 0


def test_bench_refuses(refused):
    assert "nothing" in refused("bench", "--tasks", "nothing")
    assert "--seconds" in refused("bench", "--seconds", "0")


def test_multiply_adds_of_a_step_are_counted():
    """Forward and backward: about three times the forward pass, which is counted here layer by layer."""
    from ssl_demo.nets import multiply_adds

    task = create("mae")
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 96, 96), dtype=np.float32))
    model, example = task.build(), task.training_example(images, torch.Generator())
    forward = multiply_adds(task.predict, model, example)
    assert forward > 1e7 and 2.5 < bench._step_multiply_adds(task, images) / forward < 3.1


def test_a_training_that_went_astray(refused, folder, tmp_path):
    """Its loss is still a number, but its weights are too large to be kept."""
    settings = "width=8 depths=[1] batch=4 size=32 lr=3000 optimizer=adamw warmup=0.9 ema=0.5 precision=float32".split()
    out = tmp_path / "a.safetensors"
    line = refused("train", "rotation", "--data", folder, "--steps", 8, "--out", out, "--config", *settings)
    assert "lower learning rate" in line and not out.exists()


@pytest.mark.parametrize("config", ["[]", '{"width": "x"}', '{"width": -3}'])
def test_weights_that_make_no_network(refused, file, folder, two_weights, tmp_path, config):
    tensors, path = load_file(two_weights / "rotation-new.safetensors"), tmp_path / "bad.safetensors"
    save_file(tensors, path, {"task": "rotation", "config": config})
    for command in (["run", "rotation", file, "--weights", path, "--out", tmp_path / "out"],
                    ["evaluate", "rotation", "--data", folder, "--weights", path],
                    ["train", "rotation", "--data", folder, "--steps", 1, "--start", path, "--out", tmp_path / "b.safetensors"]):
        assert "bad.safetensors" in refused(*command)


# Its own manners


def test_a_reader_that_goes_away():
    """`... | true` ends quietly. The report is a made one, as a true one takes seconds to come by."""
    code = "import sys; from ssl_demo import cli; cli._list = lambda options: {'tasks': []}; sys.exit(cli.main(['list']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert done.returncode == 0 and done.stderr == b""


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help"])
    assert ended.value.code == 0 and "--resume" in capsys.readouterr().out
