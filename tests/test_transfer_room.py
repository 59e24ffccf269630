"""The transfer room: its accuracies are the probes', nothing hears test labels, and a visitor's photo lies where it should."""

import base64
import io
import json
import re
import time
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pages import upload
from PIL import Image, ImageColor

from ssl_demo import live_transfer, probes, shipped_features
from ssl_demo.embedding import bundled_encoders
from ssl_demo.labelled import drawn
from ssl_demo.shipped_features import Shipped
from ssl_demo.ui import transfer_drawing, transfer_room

K, N, CLASSES = 4, 6, ("church", "gas_pump", "tench")
OTHER = bundled_encoders()[0]
CACHED = (live_transfer.knn, live_transfer.linear, live_transfer._pca, live_transfer._directions, live_transfer.laid_out,
          transfer_drawing.small_map, shipped_features.load)


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Made-up features of two encoders, whose classes lie apart with some noise; returns those of pixels."""
    monkeypatch.setattr(shipped_features, "folder", lambda: tmp_path)
    for cached in CACHED:
        cached.cache_clear()
    random, labels = np.random.default_rng(0), np.repeat(np.arange(3), N)
    centres = random.normal(size=(3, 192))
    for name in ("pixels", OTHER):
        train, test = (torch.from_numpy(centres[labels] + 2.2 * random.normal(size=(3 * N, 192))).float() for _ in range(2))
        shipped_features.save(Shipped(name, CLASSES, train, labels, test, labels, random.uniform(-1, 1, (6 * N, 2)),
                                      shipped_features.identity(name)))
    yield shipped_features.load("pixels")
    for cached in CACHED:
        cached.cache_clear()


def test_accuracies_are_those_of_the_probes_on_the_same_arrays(known):
    for per_class, seed in ((1, 0), (3, 5)):
        places = drawn(known.train_labels, CLASSES, per_class, seed)
        heard = known.train[places], known.train_labels[places]
        shares, _ = probes.linear(*heard, known.test, 3, seed)
        assert live_transfer.linear("pixels", per_class, seed) == probes.accuracy(shares, known.test_labels)
        assert live_transfer.knn("pixels", K, per_class, seed) == probes.accuracy(probes.knn(*heard, known.test, 3, K),
                                                                                 known.test_labels)
    scores = live_transfer.scores(["pixels", OTHER], OTHER, K, 3, 0)
    assert [score.knn for score in scores] == sorted((score.knn for score in scores), reverse=True)
    assert {score.encoder: (score.kind, score.linear is not None) for score in scores} == {
        "pixels": ("pixels", False), OTHER: ("trained", True)}


def test_no_probe_hears_a_test_label_and_none_more_than_were_drawn(known, monkeypatch):
    heard = []

    def recorded(ask):
        def record(train, labels, test, *rest):
            heard.append((train, labels))
            return ask(train, labels, test, *rest)

        return record

    monkeypatch.setattr(probes, "knn", recorded(probes.knn))
    monkeypatch.setattr(probes, "linear", recorded(probes.linear))
    live_transfer.scores(["pixels"], "pixels", K, 2, 1)
    live_transfer.votes({"pixels": known.train[:1]}, K, 2, 1)
    draws = [drawn(known.train_labels, CLASSES, 2, seed) for seed in range(live_transfer.DRAWS + 1)]
    assert len(heard) == 3 + live_transfer.DRAWS, "the margin hears other draws"
    for train, labels in heard:
        assert any(torch.equal(train, known.train[places]) and np.array_equal(labels, known.train_labels[places])
                   for places in draws)
        assert not np.shares_memory(labels, known.test_labels)
    for train, _ in (heard[0], heard[-1]):
        assert torch.equal(train, known.train[draws[1]]), "what is shown is of the seed's draw"


def test_the_vote_on_a_photo_is_its_neighbours(known):
    own = {"pixels": known.train[7:8]}
    alone = live_transfer.votes(own, 1, N, 0)["pixels"]
    assert alone.tolist() == [0, 1, 0], "the photo itself is among those with labels, and is its own nearest"
    shares = live_transfer.votes(own, K, N, 0)["pixels"]
    similarity = F.normalize(known.train, dim=1) @ F.normalize(known.train[7:8], dim=1)[0]
    near = similarity.argsort(descending=True)[:K]
    weights = ((similarity[near] - 1) / probes.TEMPERATURE).exp()
    expected = [float(weights[known.train_labels[near.numpy()] == label].sum() / weights.sum()) for label in range(3)]
    assert shares == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", live_transfer.MAPS)
def test_a_photo_that_is_on_the_map_already_falls_on_itself(known, kind):
    shown = live_transfer.map_of("pixels", kind, 1, N, 0, known.train[7:8])
    assert shown.own == pytest.approx(shown.points[7], abs=1e-4) and shown.voters.tolist() == [7]
    assert np.abs(shown.points).max() <= 1 + 1e-6 and len(shown.points) == len(shown.classes) == 6 * N
    assert (shown.explained is None) == (kind != "PCA")


def test_tsne_puts_a_photo_at_the_weighted_mean_of_its_neighbours(known):
    shown = live_transfer.map_of("pixels", "t-SNE", 3, 1, 0, torch.ones(1, 192))
    everything = F.normalize(torch.cat([known.train, known.test]), dim=1)
    similarity = (everything @ F.normalize(torch.ones(1, 192), dim=1)[0]).numpy()
    near = np.argsort(-similarity)[:3]
    weights = np.exp(similarity[near] / probes.TEMPERATURE)
    assert shown.own == pytest.approx((weights[:, None] * shown.points[near]).sum(axis=0) / weights.sum(), abs=1e-4)
    assert set(shown.voters) == set(shown.labelled) and shown.weights.sum() == pytest.approx(1), "three labels, three votes"


def test_what_is_out_of_range_is_refused(known):
    with pytest.raises(ValueError, match="from 1 to 6, not 7"):
        live_transfer.scores(["pixels"], "pixels", K, 7, 0)
    with pytest.raises(ValueError, match="t-SNE or PCA, not “UMAP”"):
        live_transfer.map_of("pixels", "UMAP", K, 1, 0)
    with pytest.raises(ValueError, match="no features of “nothing”"):
        live_transfer.knn("nothing", K, 1, 0)


def test_the_margin_holds_the_photos_and_the_draw_of_labels(known):
    photos = 0.5 * 0.5 / (3 * N)
    all_labels = live_transfer.margin(0.5, "pixels", K, N, 0)
    assert all_labels == pytest.approx(1.96 * photos**0.5, rel=1e-3), "there is one draw only"
    draws = np.var([live_transfer.knn("pixels", K, 1, seed) for seed in (7, 0, 1, 2, 3, 4)], ddof=1)
    assert live_transfer.spread("pixels", K, 1, 7) ** 2 == pytest.approx(draws) and draws > 0
    few = live_transfer.margin(0.5, "pixels", K, 1, 7)
    assert 1.96 < few / (photos + draws) ** 0.5 < 2.58, "Student's t, of five degrees of freedom or more"
    assert probes.half_interval([(0.04, np.inf)]) == pytest.approx(0.392, abs=1e-3) and probes.half_interval([(0, 5)]) == 0


def test_with_few_labels_the_chosen_encoder_alone_is_asked_after_other_draws(known, monkeypatch):
    asked, knn = [], live_transfer.knn
    monkeypatch.setattr(live_transfer, "knn", lambda *of: asked.append(of) or knn(*of))
    by_name = {score.encoder: score for score in live_transfer.scores(["pixels", OTHER], OTHER, K, 2, 0)}
    assert sorted({seed for name, _, _, seed in asked if name == OTHER}) == [*range(live_transfer.DRAWS + 1)]
    assert {seed for name, _, _, seed in asked if name == "pixels"} == {0}
    assert by_name["pixels"].margin is None and None not in (by_name[OTHER].margin, by_name[OTHER].linear_margin)
    assert all(score.margin is not None for score in live_transfer.scores(["pixels", OTHER], OTHER, K, N, 0))


# The room


@pytest.fixture
def room(known):
    with gr.Blocks():
        return transfer_room.TransferRoom()


def test_a_photo_is_seen_once_and_asked_about_often(room, monkeypatch):
    photo, looked = Image.new("RGB", (60, 40), "#6a3"), []
    see = live_transfer.see
    monkeypatch.setattr(live_transfer, "see", lambda *of: looked.append(of) or see(*of))
    story, seen, asked = room.told(photo, "pixels", 3, 2, "PCA", 0, None)
    again, same, _ = room.told(photo, OTHER, 3, 6, "t-SNE", 1, seen)
    assert len(looked) == 1 and same is seen and story != again and json.loads(asked)[:-1] == ["pixels", 3, 2, "PCA", 0]
    assert room.told(Image.new("RGB", (9, 9)), "pixels", 3, 2, "PCA", 0, seen)[1] is not seen and len(looked) == 2
    assert story.count("<section") == 4 and 'aria-checked="true"' in story and "gas pump" in story and "tench (fish)" in story
    assert "other test photos and other labels" in story and "other labels" not in again, "of the second all labels are known"
    assert len(re.findall('<i style="left:[0-9.]+%;width', story)) == 3, "the chosen encoder's alone"
    assert "6 labels" in story and "18 unseen photos" in story and "36 photos" in story and "chance, 33%" in story


def test_a_mistake_is_one_sentence(room):
    with pytest.raises(gr.Error, match="from 1 to 6"):
        room.told(Image.new("RGB", (9, 9)), "pixels", 3, 50, "PCA", 0, None)


def test_without_features_the_room_says_so(known, tmp_path):
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    with gr.Blocks():
        empty = transfer_room.TransferRoom()
    answer, *_ = empty.told(Image.new("RGB", (9, 9)), None, 3, 1, "PCA", 0, None)
    assert empty.encoders == [] and answer == gr.skip()


def test_every_class_has_a_mark_of_its_own():
    paths = {(transfer_drawing.shape(kind, 0, 0, 3), transfer_drawing.style(kind).split()[1]) for kind in range(10)}
    assert len(paths) == 10, "also without colours"
    assert all(re.fullmatch(r"[MahvlzmL0-9.,\- ]+", path) for path, _ in paths)


def test_names_are_text(known):
    photo = Image.new("RGB", (9, 9))
    shown = live_transfer.map_of("pixels", "PCA", 1, 1, 0, known.train[:1])
    drawn_map = transfer_drawing.map_html(shown, ["<b>", "b", "c"], photo, "<i>")
    assert "<b>" not in drawn_map and "<i>" not in drawn_map and "&lt;b&gt;" in drawn_map


def test_small_maps_show_the_photo_where_each_large_one_does(known):
    places = {"pixels": np.array([0.5, -2.0]), OTHER: live_transfer.place(OTHER, "PCA", K, known.train[:1])}
    assert places[OTHER] == pytest.approx(live_transfer.map_of(OTHER, "PCA", K, 1, 0, known.train[:1]).own)
    shown = transfer_drawing.maps_html(places, [OTHER, "pixels"], "pixels", "PCA", CLASSES)
    assert re.findall('data-encoder="(.+?)".+?aria-checked="(.+?)"', shown) == [(OTHER, "false"), ("pixels", "true")]
    assert re.findall('<i style="left:(.+?)%;top:(.+?)%">', shown)[1] == ("74.5", "99.0"), "below the map: on its edge"
    label, count = live_transfer.around("pixels", "PCA", places["pixels"])
    away = np.linalg.norm(live_transfer.laid_out("pixels", "PCA")[0] - places["pixels"], axis=1)
    counts = np.bincount(live_transfer.classes_of("pixels")[np.argsort(away)[: live_transfer.AROUND]])
    assert (label, count) == (counts.argmax(), counts.max())
    assert f'alt="Around your photo: {transfer_drawing.readable(CLASSES[label])}, {count} of {live_transfer.AROUND}"' in shown


@pytest.mark.parametrize("kind", live_transfer.MAPS)
def test_a_small_map_is_a_tiny_picture_in_the_large_ones_colours(known, kind):
    url = transfer_drawing.small_map("pixels", kind)
    picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA")
    assert picture.size == (transfer_drawing.SMALL,) * 2 and picture.getpixel((48, 48))[3] in (0, 255)
    for point, label in zip(live_transfer.laid_out("pixels", kind)[0][: 3 * N], known.train_labels):
        x, y = ((point * (1, -1) + 1) / 2 * (transfer_drawing.SMALL - 2)).round().astype(int)
        near = {picture.getpixel((int(x) + right, int(y) + down)) for right in (0, 1) for down in (0, 1)}
        assert (*ImageColor.getrgb(transfer_drawing.PALETTE[label]), 255) in near or len(near) > 1, "another may lie above"
    css = (Path(transfer_drawing.__file__).parent / "styles" / "transfer.css").read_text(encoding="utf-8")
    assert re.findall(r"--k\d: (#\w+)", css.split(".dark")[0]) == [*transfer_drawing.PALETTE]


def test_the_small_maps_of_all_encoders_are_less_than_100_kb():
    names = shipped_features.available()
    sizes = [len(transfer_drawing.small_map(name, kind)) for kind in live_transfer.MAPS for name in names]
    assert sum(sizes) / len(live_transfer.MAPS) + 600 * len(names) < 100_000, "with what stands around each"


# The endpoint of the running app


def test_the_endpoint_tells_accuracies_and_the_votes_on_a_photo(url, files):
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    name = shipped_features.available()[0]
    report = client.predict(encoder=name, neighbours=5, labels_per_class=3, seed=2, file=handle_file(str(files / "plain.png")),
                            api_name="/transfer")
    found = {result["encoder"]: result for result in report["results"]}
    assert set(found) == set(shipped_features.available()) == {vote["encoder"] for vote in report["photo"]}
    assert found[name]["knn"] == live_transfer.knn(name, 5, 3, 2) and found[name]["linear"] == live_transfer.linear(name, 3, 2)
    assert found[name]["margin"] == pytest.approx(live_transfer.margin(found[name]["knn"], name, 5, 3, 2))
    assert all(result["margin"] > 0.03 for result in report["results"])
    assert all(sum(vote["votes"].values()) == pytest.approx(1, abs=1e-4) for vote in report["photo"])
    assert "photo" not in client.predict(encoder=name, neighbours=5, labels_per_class=3, seed=2, file=None, api_name="/transfer")
    with pytest.raises(Exception, match="from 1 to 100, not 0|minimum"):
        client.predict(encoder=name, neighbours=5, labels_per_class=0, seed=2, file=None, api_name="/transfer")


def test_a_new_photo_tells_which_encoder_is_asked_and_can_be_cancelled(fresh_page, files, monkeypatch):
    page = fresh_page
    page.click("#room-transfer-button")
    page.wait_for_selector("#transfer-story .map .own image", timeout=60_000)
    page.wait_for_selector("#transfer-progress .progress", state="detached")
    before, asked, embed = page.inner_html("#transfer-story .story"), [], shipped_features.embed

    def slowly(*of):
        asked.append(of)
        time.sleep(1)
        return embed(*of)

    monkeypatch.setattr(shipped_features, "embed", slowly)
    upload(page, files / "sideways.jpg")
    page.wait_for_function("/Asking .+; encoders asked: [1-9][0-9]* of [0-9]+, about [0-9]+ s left/.test("
                           "document.querySelector('#transfer-progress .progress')?.innerText)", timeout=60_000)
    assert page.locator("#transfer-cancel").is_visible()
    page.evaluate("document.querySelector('#transfer-cancel').click()")
    page.wait_for_selector("#transfer-progress .progress", state="detached", timeout=60_000)
    assert "Cancelled" in page.inner_text(".told-mistake") and not page.locator("#transfer-cancel").is_visible()
    reached = len(asked)
    page.wait_for_timeout(1500)
    assert len(asked) == reached < len(shipped_features.available()) and page.inner_html("#transfer-story .story") == before
    monkeypatch.setattr(shipped_features, "embed", embed)
    page.click("#room-overview-button")
    page.click("#room-transfer-button")
    page.wait_for_function("before => document.querySelector('#transfer-story .story').innerHTML !== before", arg=before,
                           timeout=60_000)
    assert page.errors == []


def test_what_is_set_stands_in_the_address_and_a_link_opens_it(fresh_page, url):
    page = fresh_page
    page.goto(f"{url}?room=transfer&photo=coffee&neighbours=3&map=PCA&seed=2")
    page.wait_for_function("document.querySelector('#transfer-story .story')?.dataset.settings === 'neighbours=3&map=PCA&seed=2'",
                           timeout=90_000)
    assert page.input_value("#transfer-neighbours input[type=number]") == "3" and "(PCA" in page.inner_text("#transfer-story")
    page.click("#transfer-map input[value='t-SNE']")
    page.wait_for_function("location.search === '?room=transfer&photo=coffee&neighbours=3&seed=2'", timeout=30_000)
    page.click("#room-overview-button")
    page.wait_for_function("location.search === '?room=overview&photo=coffee'")
    assert page.errors == []
