"""Classes taught by a handful of pictures: what is counted, what is said of it, what is refused. Most of it by bare pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_demo import embedding, probes, teach
from ssl_demo.checkpoints import UNTRAINED
from ssl_demo.teach import Group, Lesson, Picture
from ssl_demo.transfer import PIXELS
from ssl_demo.ui import teach_story


@pytest.fixture(autouse=True)
def by_pixels(monkeypatch):
    """The other encoders take seconds; one test asks them."""
    monkeypatch.setattr(teach, "encoders", lambda: [PIXELS])


def noise(color, seed, spread=60):
    """A picture of a colour, and noise."""
    random = np.random.default_rng(seed)
    return Image.fromarray(np.clip(np.array(color) + random.normal(0, spread, (40, 40, 3)), 0, 255).astype(np.uint8))


def classes(count=5, **colors):
    return [Group(name, [Picture(noise(color, seed)) for seed in range(count)]) for name, color in colors.items()]


RED_AND_BLUE = {"red": (160, 90, 90), "blue": (90, 90, 160)}


def test_classes_that_differ_are_told_apart_and_a_photo_is_put_into_the_right_one():
    groups = classes(**RED_AND_BLUE)
    told = teach.report(groups, Picture(noise((150, 80, 90), 99)))
    (row,) = told["encoders"]
    assert (row["right"], row["of"], row["accuracy"]) == (10, 10, 1.0) and told["chance"] == 0.5
    assert row["class"] == told["together"]["class"] == "red" and 0.6 < row["probability"] <= 1
    assert [group["pictures"] for group in told["classes"]] == [5, 5]


def test_large_classes_do_not_swallow_small_ones():
    groups = [Group("red", [Picture(noise((160, 90, 90), seed)) for seed in range(3)]),
              Group("blue", [Picture(noise((90, 90, 160), seed)) for seed in range(24)])]
    assert teach.report(groups)["encoders"][0]["right"] == 27
    assert teach.report(groups)["chance"] == 24 / 27


def test_one_left_out_is_judged_without_its_own_label():
    """Whatever label it has, it is told the same: the label takes no part in its answer."""
    features, labels = torch.randn(9, 12, generator=torch.manual_seed(0)), np.arange(9) % 3
    before = probes.left_out(features, labels, 3)
    for place in range(9):
        for label in range(3):
            changed = labels.copy()
            changed[place] = label
            assert torch.equal(probes.left_out(features, changed, 3)[place], before[place])


def test_random_labels_are_told_no_better_than_by_chance():
    random, shares = np.random.default_rng(0), []
    for draw in range(40):
        features = torch.randn(20, 64, generator=torch.manual_seed(draw))
        right, of = teach.tally(features, random.permutation(np.arange(20) % 2), 2)
        shares.append(right / of)
    assert 0.35 < np.mean(shares) < 0.53  # a little below: of its own class one picture less is known


def test_the_probe_is_ridge_regression_on_standardised_features():
    features, labels = torch.randn(12, 20, generator=torch.manual_seed(1)) * 3 + 1, np.arange(12) % 3
    train, test = features[:9], features[9:]
    shares = probes.least_squares(train, labels[:9], test, 3)
    mean, spread = train.mean(dim=0), train.std(dim=0, correction=0)
    train, test = (train - mean) / spread, (test - mean) / spread
    layer = torch.linalg.solve(train.T @ train + probes.HELD_BACK * 20 * torch.eye(20), train.T @ torch.eye(3)[labels[:9]])
    assert torch.allclose(shares, (test @ layer / probes.SOFTNESS).softmax(dim=1), atol=1e-4)  # (20, 3): as many as features


@pytest.mark.parametrize("right, of, low, high", [(6, 6, 0.610, 1.0), (0, 6, 0.0, 0.390), (5, 10, 0.237, 0.763),
                                                  (81, 263, 0.255, 0.366)])  # the last: Newcombe 1998, table I, method 3
def test_the_interval_is_wilsons(right, of, low, high):
    found = teach.wilson(right, of)
    assert found == pytest.approx((low, high), abs=6e-4)
    for bound in found:  # it holds the shares p that the count does not contradict: |share - p| <= z sqrt(p (1 - p) / n)
        if 0 < bound < 1:
            assert abs(right / of - bound) == pytest.approx(teach.Z * (bound * (1 - bound) / of) ** 0.5, abs=1e-6)


def row(title, right, of=20):
    low, high = teach.wilson(right, of)
    return {"title": title, "right": right, "of": of, "accuracy": right / of, "low": low, "high": high}


def test_encoders_are_said_to_differ_only_where_intervals_lie_apart():
    say = teach.conclusion
    assert "none can be said to be better" in say({"chance": 0.5, "encoders": [row("A", 18), row("B", 13)]})
    text = say({"chance": 0.5, "encoders": [row("A", 20), row("B", 16), row("C", 9), row("D", 4)]})
    assert "A is better than the last 2" in text and "2 of 4 intervals lie wholly above chance" in text
    assert "no interval lies wholly above chance" in say({"chance": 0.9, "encoders": [row("A", 19), row("B", 19)]})


def test_a_class_takes_part_from_its_second_picture_on():
    lesson = Lesson()
    lesson.add(0, [noise((200, 0, 0), 1), noise((200, 0, 0), 2)])
    lesson.add(1, [noise((0, 0, 200), 1)])
    assert [group.name for group in lesson.ready()] == ["Class A"]
    with pytest.raises(ValueError, match="two classes with at least 2"):
        teach.report(lesson.groups)
    lesson.add(1, [noise((0, 0, 200), 2)])
    assert list(lesson.look()) == [(0, 1)] and teach.report(lesson.ready(), None, lesson.scores)["encoders"][0]["of"] == 4


def test_every_picture_is_seen_once_and_scores_last_until_pictures_change(monkeypatch):
    seen, counted = [], []
    embed, tally = embedding.embed, teach.tally
    monkeypatch.setattr(embedding, "embed", lambda pictures, name: seen.append(len(pictures)) or embed(pictures, name))
    monkeypatch.setattr(teach, "tally", lambda *arguments: counted.append(1) or tally(*arguments))
    lesson = Lesson()
    lesson.begin(classes(**RED_AND_BLUE))
    photo = noise((150, 80, 90), 99)
    for _ in range(2):
        lesson.ask(photo)
        list(lesson.look())
        teach.report(lesson.ready(), lesson.asked[1], lesson.scores)
    assert seen == [11] and len(counted) == 1
    lesson.ask(noise((0, 0, 200), 98))
    teach.report(lesson.ready(), lesson.asked[1], lesson.scores)
    assert seen == [11, 1] and len(counted) == 1
    lesson.remove(lesson.groups[0].pictures[0].number)
    assert teach.report(lesson.ready(), lesson.asked[1], lesson.scores)["encoders"][0]["of"] == 9 and seen == [11, 1]


def test_a_change_ends_the_look_before():
    lesson = Lesson()
    lesson.begin(classes(**RED_AND_BLUE))
    look = lesson.look()
    next(look)
    lesson.remove(lesson.groups[0].pictures[0].number)
    assert list(look) == [] and not lesson.groups[0].pictures[0].features


def test_limits_are_told_in_a_sentence_and_what_fits_joins():
    lesson = Lesson()
    with pytest.raises(ValueError, match="at most 30 pictures; 2 more of “Class A” were left out"):
        lesson.add(0, [noise((9, 9, 9), 0)] * 32)
    assert len(lesson.groups[0].pictures) == 30 and max(lesson.groups[0].pictures[0].image.size) <= teach.SIDE
    for _ in range(3):
        lesson.open()
    with pytest.raises(ValueError, match="at most 5 classes"):
        lesson.open()
    lesson.begin()
    assert [group.name for group in lesson.groups] == ["Class A", "Class B"] and not lesson.groups[0].pictures


def test_names_are_told_apart():
    lesson = Lesson()
    lesson.rename(0, "  my   cat ")
    with pytest.raises(ValueError, match="“my cat” already"):
        lesson.rename(1, "my cat")
    lesson.rename(0, "")
    assert [group.name for group in lesson.groups] == ["Class A", "Class B"]
    lesson.rename(0, "Class C")
    lesson.open()
    assert len({group.name for group in lesson.groups}) == 3


def test_labels_from_outside_are_checked():
    images = [noise((9, 9, 9), seed) for seed in range(4)]
    assert [(group.name, len(group.pictures)) for group in teach.grouped(images, ["a", "b", "a", "b"])] == [("a", 2), ("b", 2)]
    for labels in (["a", "b"], None, "abcd", [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="`labels` must be a JSON list"):
            teach.grouped(images, labels)
    with pytest.raises(ValueError, match="at most 5 classes, not 6"):
        teach.grouped(images + images[:2], list("abcdef"))
    with pytest.raises(ValueError, match="“a” has 31"):
        teach.grouped(images[:1] * 31, ["a"] * 31)


def test_all_encoders_answer_and_the_trained_ones_vote_together(monkeypatch):
    trained = embedding.bundled_encoders()[:2]
    monkeypatch.setattr(teach, "encoders", lambda: [*trained, f"{trained[0]}:{UNTRAINED}", PIXELS])
    cat, _, rocket = teach.example()
    told = teach.report([Group(group.name, group.pictures[:3]) for group in (cat, rocket)], rocket.pictures[0])
    rows = told["encoders"]
    assert {row["encoder"] for row in rows} == set(teach.encoders()) and [row["trained"] for row in rows].count(True) == 2
    accuracies = [row["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True) and accuracies[0] > 0.8
    joint = told["together"]
    assert joint["class"] == "Rocket" and joint["encoders"] == 2 and joint["probability"] > 0.5
    assert joint["agree"] == sum(row["class"] == "Rocket" for row in rows if row["trained"])


@pytest.mark.parametrize("ahead, named", [(0.02, False), (0.4, True)])
def test_a_class_is_named_only_where_it_is_ahead(ahead, named):
    joint = {"class": "cats", "probability": 0.5, "ahead": ahead, "agree": 6, "encoders": 12}
    told = teach_story.together({"together": joint}, Picture(noise((9, 9, 9), 0)))
    assert (">cats<" in told) == named != (">Undecided<" in told) and ("“cats”" in told) != named
