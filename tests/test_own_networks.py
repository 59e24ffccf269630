"""A visitor's own network among the encoders: its features are of the photos of those that ship, and are nobody else's."""

import dataclasses
import gc
import shutil
import weakref
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from ssl_demo import embedding, inference, labelled, live_data, live_transfer, own_features, own_networks, shipped_features, teach
from ssl_demo.checkpoints import find
from ssl_demo.shipped_features import SIDE, Shipped
from ssl_demo.teach import Group, Lesson, Picture
from ssl_demo.ui import lab_visits, own_encoder, teach_room, transfer_room

TASK = embedding.bundled_encoders()[0]
CLASSES, TRAIN, TEST = ("dark", "light"), 3, 2


@pytest.fixture
def mine(tmp_path):
    """A visit's own network, which is a copy of the bundled one: its key."""
    path = tmp_path / "shelf" / "mine.safetensors"
    path.parent.mkdir()
    shutil.copy(find(TASK, None), path)
    (key,) = own_networks.keys({TASK: {"my <b>": str(path)}})
    yield key
    own_networks.forget(path.parent)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host's class folders of 20 photos, of which the features of 10 ship: of bare pixels and of one encoder."""
    random, folder = np.random.default_rng(0), tmp_path / "host"
    for part, count in (("train", 6), ("val", 4)):
        for place, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                small = random.integers(0, 130, (9, 9, 3)) + 120 * place
                picture = Image.fromarray(small.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                picture.save(folder / part / name / f"{number}.png")
    monkeypatch.setattr(shipped_features, "folder", lambda: tmp_path / "features")
    monkeypatch.setattr(own_features, "places_by_tsne", lambda features, seed: np.zeros((len(features), 2)))
    caches = (shipped_features.load, own_features._found, live_transfer.knn, live_transfer.linear)
    for cache in caches:
        cache.cache_clear()
    data = labelled.load_labelled(folder, SIDE)
    for encoder in ("pixels", TASK):
        parts = {}
        for part, count in (("train", TRAIN), ("test", TEST)):
            photos, labels = getattr(data, part), getattr(data, f"{part}_labels")
            places = labelled.drawn(labels, data.classes, count, 0)
            pictures = [Image.fromarray(pixels) for pixels in photos.array[photos.index[places]]]
            parts |= {part: shipped_features.embed(pictures, encoder), f"{part}_labels": labels[places]}
        shipped_features.save(Shipped(encoder, CLASSES, **parts, map=np.zeros((10, 2)),
                                      about={"seed": "0", **shipped_features.identity(encoder)}))  # fmt: skip
    yield folder
    for cache in caches:
        cache.cache_clear()


def test_a_key_says_no_path_and_leads_nowhere_once_its_visitor_left(mine, tmp_path):
    assert own_networks.is_own(mine) and str(tmp_path) not in mine and embedding.title(mine) == "Yours: my <b>"
    assert live_transfer.kind_of(mine) == "trained" and not own_networks.is_own(f"{TASK}:untrained")
    picture = [Image.new("RGB", (40, 30), "#58a")]
    assert torch.equal(embedding.embed(picture, mine), embedding.embed(picture, TASK))
    own_networks.forget(tmp_path / "shelf")
    with pytest.raises(ValueError, match="not here any more"):
        embedding.embed(picture, mine)


def test_it_sees_the_very_photos_whose_features_ship(mine, host):
    photos = own_features.photos_of([str(host / "train" / "dark"), str(host)])
    steps = list(own_features.look(mine, photos))
    assert steps[0] == (0, 10) and steps[-1] == (10, 10) and own_features.known(mine)
    own, shipped = shipped_features.load(mine), shipped_features.load(TASK)
    assert torch.equal(own.train, shipped.train) and torch.equal(own.test, shipped.test)
    ranked = live_transfer.scores([mine, TASK, "pixels"], mine, 3, TRAIN, 0)
    by = {score.encoder: score for score in ranked}
    assert by[mine].knn == by[TASK].knn and by[mine].linear is not None


def test_what_it_made_goes_with_its_visitor(mine, host, monkeypatch):
    monkeypatch.setattr(teach, "encoders", lambda: ["pixels"])
    list(own_features.look(mine, own_features.photos_of([str(host)])))
    calls = [(live_transfer.knn, 3, TRAIN, 0), (live_transfer.linear, TRAIN, 0), (live_transfer._pca,),
             (live_transfer._directions,), (shipped_features.load,)]  # fmt: skip
    for ask, *values in calls:
        assert ask(mine, *values) is ask(mine, *values), "remembered for as long as the visit lasts"
        ask("pixels", *values)
    lesson = Lesson()
    lesson.invite([mine])
    lesson.begin(teach.example())
    list(lesson.look())
    assert all(mine in picture.own and "pixels" in picture.features for picture in lesson.pictures())
    others = [picture for group in teach.example() for picture in group.pictures]
    assert all("pixels" in picture.features and not picture.own for picture in others), "another visit's example is as it was"
    path = own_networks.find(mine).path
    runner = inference.load(TASK, path)
    assert inference.load(TASK, path) is runner
    made = [weakref.ref(one) for one in (runner.model, shipped_features.load(mine), shipped_features.load(mine).train,
                                         live_transfer._pca(mine)[0], lesson.pictures()[0].own[mine])]  # fmt: skip
    del runner, lesson, others
    shutil.rmtree(Path(path).parent)
    own_networks.forget(Path(path).parent)
    gc.collect()
    assert [one() for one in made] == [None] * len(made)
    for ask, *values in calls:
        with pytest.raises(ValueError, match="not here any more"):
            ask(mine, *values)
        assert ask("pixels", *values) is ask("pixels", *values)
    with pytest.raises(ValueError):
        inference.load(TASK, path)
    assert own_networks.keys({TASK: {"mine": path}}) == [], "a dead file makes no key again"


def test_the_networks_that_were_asked_longest_ago_answer_anew(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(own_networks, "MOST_MADE", 1)
    first = own_networks.find(mine)
    runner = inference.load(TASK, first.path)
    shutil.copytree(tmp_path / "shelf", tmp_path / "shelf" / "second")
    own, _ = lab_visits.join({}, TASK, "other", tmp_path / "shelf" / "second" / "mine.safetensors")
    inference.load(TASK, own[TASK]["other"])
    assert not first.made and inference.load(TASK, first.path) is not runner and first.made


def test_photos_are_known_by_their_pixels_in_any_order_and_others_are_not_taken(host, tmp_path):
    expected = own_features.photos_of([str(host)])
    shuffled, other = tmp_path / "shuffled", tmp_path / "other"
    for place, path in enumerate(sorted(host.rglob("*.png"))):
        for folder, reverse in ((shuffled, True), (other, False)):
            name = folder / path.parent.relative_to(host) / f"{100 - place if reverse else place:03d}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.open(path)
            (picture if reverse else Image.eval(picture, lambda value: 255 - value)).save(name)
    found = own_features.photos_of([str(shuffled)])
    assert [picture.tobytes() for picture in found] == [picture.tobytes() for picture in expected]
    assert own_features.photos_of([str(other)]) is None and own_features.photos_of([]) is None


# The rooms


def test_the_transfer_room_compares_it_after_it_has_looked(mine, host, monkeypatch):
    monkeypatch.setattr(lab_visits.lab(), "_data", [str(host)])
    with gr.Blocks():
        room = transfer_room.TransferRoom()
    photo, values, visit = Image.new("RGB", (60, 40), "#6a3"), (3, 2, "PCA", 0), type("Visit", (), {"session_hash": "me"})()
    told, seen, _ = room.told(photo, mine, *values, None)
    assert "my &lt;b&gt; has not seen the photos" in told and mine not in seen[1]
    *steps, last = room.look(visit, photo, mine, *values, seen)
    assert "Photos seen: 0 of 10" in steps[1][3] and steps[1][2]["visible"]
    story, seen, busy, *_ = last
    assert not busy["visible"] and story.count("<section") == 4 and f'data-encoder="{mine}"' in story and mine in seen[1]
    again, _, _ = room.told(Image.new("RGB", (9, 9)), TASK, *values, seen)
    assert f'data-encoder="{mine}"' in again, "it stays among those that are compared"
    assert [step[2]["visible"] for step in room.look(visit, photo, TASK, *values, seen)] == [False]


def test_a_look_is_cancelled_and_can_begin_again(mine, host, monkeypatch):
    monkeypatch.setattr(lab_visits.lab(), "_data", [str(host)])
    with gr.Blocks():
        own = own_encoder.OwnEncoder()
    steps = own.look("me", mine)
    assert next(steps) and next(steps)[1]["visible"]
    own.stop(type("Visit", (), {"session_hash": "me"})())
    (story, busy, _, again, teach_it), = steps
    assert not busy["visible"] and again["visible"] and not teach_it["visible"] and "has not seen" in story
    assert not own_features.known(mine) and own._looks == {}
    first, second = own.look("me", mine), own.look("me", mine)
    next(first), next(first), next(second)
    assert list(first) == [], "another choice took over, and the first has nothing more to say"
    second.close()


def test_where_the_host_has_no_photos_one_sentence_says_so_and_a_button_leads_on(mine, monkeypatch):
    monkeypatch.setattr(lab_visits.lab(), "_data", [])
    with gr.Blocks():
        own = own_encoder.OwnEncoder()
    _, (story, busy, _, again, teach_it) = own.look("me", mine)
    assert "do not ship" in story and "Teach it" in story and "<b>" not in story
    assert teach_it["visible"] and not busy["visible"] and not again["visible"]


def test_it_is_taught_beside_the_others_and_does_not_vote(mine, monkeypatch):
    monkeypatch.setattr(teach, "encoders", lambda: [TASK, "pixels"])
    groups = [Group(name, [Picture(Image.new("RGB", (40, 40), (base + 5 * n, 40, 90))) for n in range(3)])
              for name, base in (("red", 180), ("blue", 20))]  # fmt: skip
    lesson = Lesson()
    lesson.invite([mine])
    lesson.begin(groups)
    assert [of for _, of in lesson.look()] == [3, 3, 3] and all(mine in picture.own for picture in lesson.pictures())
    told = teach.report(lesson.ready(), groups[0].pictures[0], lesson.scores, lesson.own)
    rows = {row["encoder"]: row for row in told["encoders"]}
    assert rows[mine]["own"] and rows[mine]["trained"] and rows[mine]["accuracy"] == rows[TASK]["accuracy"]
    assert told["together"]["encoders"] == 1 and told["together"]["agree"] <= 1


@pytest.mark.parametrize("asked", ["before", "never"])
def test_one_that_is_gone_is_dropped_and_the_room_still_answers(mine, monkeypatch, asked):
    monkeypatch.setattr(teach, "encoders", lambda: [TASK, "pixels"])
    said, lesson, photo = [], Lesson(), Image.new("RGB", (40, 40), "#58a")
    monkeypatch.setattr(teach_room.toasts, "warn", lambda mistake: said.append(str(mistake)))
    with gr.Blocks():
        room = teach_room.TeachRoom()
    lesson.invite([mine])
    lesson.begin(teach.example())
    if asked == "before":
        *_, (told, _) = room.work(photo, lesson)
        assert "my &lt;b&gt;" in told and said == []
    own_networks.forget(Path(own_networks.find(mine).path).parent)
    *_, (told, _) = room.work(photo, lesson) if asked == "never" else [room.answer(Image.new("RGB", (9, 9)), lesson)]
    assert "my &lt;b&gt;" not in told and "On 18 pictures" in told and lesson.own == []
    assert len(said) == 1 and "not here any more" in said[0]
    assert room.answer(photo, lesson)[0].count('class="reach"') == 2 and len(said) == 1


def test_the_transfer_room_says_of_one_that_is_gone_that_it_is(mine, monkeypatch):
    said = []
    monkeypatch.setattr(own_encoder.toasts, "warn", lambda mistake: said.append(str(mistake)))
    with gr.Blocks():
        own = own_encoder.OwnEncoder()
    own_networks.forget(Path(own_networks.find(mine).path).parent)
    ((_, busy, _, again, _),) = own.look("me", mine)
    assert not busy["visible"] and not again["visible"] and len(said) == 1 and "not here any more" in said[0]


# A training that is probed


def test_any_training_is_probed_where_the_host_has_photos_with_classes(host, monkeypatch, photo):
    monkeypatch.setattr(live_data, "PROBE", (4, 3))
    live_data.probe_set.cache_clear()
    few = live_data.probe_set((str(host / "train" / "dark"), str(host)))
    assert few.classes == list(CLASSES) and len(few.train) == 8 and len(few.test) == 6
    assert live_data.probe_set(("torchvision:CIFAR10",)) is None and live_data.probe_set(()) is None
    live_data.probe_set.cache_clear()
    for found, classes in ((few, 2), (None, 0)):
        monkeypatch.setattr(lab_visits, "probed", lambda found=found: found)
        run = lab_visits.start("somebody", "rotation", "examples", seconds=1, size="tiny", start_from="scratch", called="",
                               seed=0, knobs={"batch": "4"}, photo=photo, moving=photo, brought=[], company=[])
        assert run.join(60)
        view = run.view()
        assert view.classes == classes and bool(view.probe) == bool(classes)
        assert lab_visits.status(view)["probe_chance"] == (0.5 if classes else None)
        assert dataclasses.asdict(view)["state"] == "finished" and view.weights and not view.saving
        lab_visits.leave("somebody")
