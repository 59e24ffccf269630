"""Video colouring: pointers copy what they should and look nowhere else; grey goes in; masks are carried; clicks and strokes."""

import json
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import generator

from ssl_demo import drawing, inference
from ssl_demo.clips import ClipBatches, Clips, load_clips, load_to_score
from ssl_demo.pointers import around, blocks, carry, k_means, together
from ssl_demo.pretext import create
from ssl_demo.progress import Cancelled, listening
from ssl_demo.training import evaluate, train, with_settings
from ssl_demo.video import Clip

SMALL = {"size": 48, "width": 8, "depths": [1, 1], "features": 32}
STROKES = "10 50 40 50 45"


@pytest.fixture(scope="module")
def task():
    return create("video_color")


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    return task.build().eval()


@pytest.fixture(scope="module")
def batch(photos):
    return ClipBatches(Clips.moving(photos), 2, 144)(0)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=generator(seed)), dim=2)


def known(T, *frames, B=1):
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[:, list(frames)] = True
    return mask


# Pointers


def slowly(features, labels, known, radius, temperature, recent):
    """What `carry` promises, place by place."""
    B, T, _, h, w = features.shape
    values, copied = [labels[:, t].clone() for t in range(T)], [labels[:, 0]]
    for t in range(1, T):
        answer = torch.zeros_like(labels[:, 0])
        for b, y, x in np.ndindex(B, h, w):
            similar, told = [], []
            for f in sorted({0, *range(max(0, t - recent), t)}):
                for v, u in np.ndindex(h, w):
                    if abs(v // radius - y // radius) <= 1 and abs(u // radius - x // radius) <= 1:
                        similar.append(features[b, t, :, y, x] @ features[b, f, :, v, u] / temperature)
                        told.append(values[f][b, :, v, u])
            answer[b, :, y, x] = torch.stack(similar).softmax(dim=0) @ torch.stack(told)
        copied.append(answer)
        values[t] = torch.where(known[:, t, None, None, None], labels[:, t], answer)
    return torch.stack(copied, dim=1)


@pytest.mark.parametrize("recent", [0, 1, 3])
def test_carry_equals_a_loop_over_places(recent):
    """Blocks, windows that the map's edge cuts off, known and unknown frames: all at once, the same."""
    features, labels = unit(2, 4, 8, 5, 7), torch.rand(2, 4, 3, 5, 7, generator=generator(1))
    mask = torch.tensor([[True, False, True, False], [True, True, False, False]])
    quick = carry(features, labels, mask, 2, 0.1, recent)
    assert torch.allclose(quick, slowly(features, labels, mask, 2, 0.1, recent), atol=1e-5)


def test_shares_stay_shares():
    labels = torch.rand(1, 6, 5, 9, 9, generator=generator()).softmax(dim=2)
    copied = carry(unit(1, 6, 8, 9, 9), labels, known(6, 0), 4, 0.05)
    assert copied.min() >= 0 and torch.allclose(copied.sum(dim=2), torch.ones(1, 6, 9, 9), atol=1e-5)


def test_the_pointer_copies_exactly_when_frames_are_the_same():
    """A feature of length one is most like itself: as the temperature falls, every label comes back, frame after frame."""
    features, labels = unit(1, 1, 64, 12, 12).expand(-1, 5, -1, -1, -1), torch.rand(1, 5, 3, 12, 12, generator=generator(1))
    copied = carry(features, labels, known(5, 0), 4, 0.015)
    assert torch.allclose(copied, labels[:, :1].expand_as(copied), atol=1e-4)
    assert not torch.allclose(carry(features, labels, known(5, 0), 4, 0.5)[:, 1], labels[:, 0], atol=1e-2)


def test_the_same_frame_keeps_its_colours(task, model, batch):
    """Nearly, with the features of an untrained network even, which are all much alike: the sharper the pointer, the better."""
    still = batch[:, :1].expand(-1, 4, -1, -1, -1)
    with torch.no_grad():
        features = task.predict(model, task.example(still, generator()))["features"]
        labels = task.example(still, generator())["targets"]
        sharp, soft = (carry(features, labels, known(4, 0, B=2), 4, temperature) for temperature in (0.015, 0.5))
    spread = labels.std()
    assert (sharp - labels).square().mean().sqrt() < 0.3 * spread < (soft - labels).square().mean().sqrt()


def test_labels_move_with_their_features():
    """Everything shifts by two places, from frame to frame; so do the labels."""
    wide, colors = unit(1, 1, 64, 12, 20), torch.rand(1, 1, 3, 12, 20, generator=generator(1))
    features, labels = (torch.cat([maps[..., 2 * t : 2 * t + 12] for t in range(4)], dim=1) for maps in (wide, colors))
    copied = carry(features, labels, known(4, 0), 4, 0.015)
    assert torch.allclose(copied[..., :6], labels[..., :6], atol=1e-3), "what was in frame 1 is found again"


def test_unknown_labels_are_never_read():
    features, labels = unit(1, 4, 8, 9, 9), torch.rand(1, 4, 2, 9, 9, generator=generator(1))
    other = labels.clone()
    other[:, 1:] = 7
    assert torch.equal(carry(features, labels, known(4, 0), 4, 0.1), carry(features, other, known(4, 0), 4, 0.1))
    later = labels.clone()
    later[:, 2:] = 7  # a frame that is known is read by those after it alone
    one, two = (carry(features, given, known(4, 0, 2), 4, 0.1) for given in (labels, later))
    assert torch.equal(one[:, :3], two[:, :3]) and not torch.equal(one[:, 3], two[:, 3])


def test_no_place_looks_outside_its_window():
    features, labels = unit(1, 2, 8, 16, 16), torch.zeros(1, 2, 1, 16, 16)
    labels[..., 12:, 12:] = 1
    reached = carry(features, labels, known(2, 0), 4, 1.0)[0, 1, 0] > 0
    assert reached[8:, 8:].all() and not reached[:8].any() and not reached[:, :8].any()


@pytest.mark.parametrize("size", [(4, 4), (7, 9), (12, 5), (1, 1)])
def test_blocks_and_back(size):
    maps = torch.rand(2, 3, *size, generator=generator())
    cut = blocks(maps, 4)
    assert torch.equal(together(cut, *size), maps)
    assert torch.equal(around(cut)[:, :, :, 64:80], cut), "the middle of the nine is the block itself"


def test_k_means():
    points = torch.randn(600, 2, generator=generator()) + torch.tensor([[0.0, 0], [30, 0], [0, 30]]).repeat(200, 1)
    centres = k_means(points, 3)
    assert torch.cdist(torch.tensor([[0.0, 0], [30, 0], [0, 30]]), centres).amin(dim=1).max() < 0.5
    assert torch.equal(centres, k_means(points, 3))
    assert k_means(torch.zeros(10, 2), 4).isfinite().all()


# The signal


def test_the_network_sees_no_colour(task, model, batch):
    """Frames of one lightness and other colours give the same features; and the colours of later frames change no answer."""
    example = task.example(batch, generator())
    assert example["inputs"].shape == (2, 4, 1, 144, 144)
    other = {**example, "targets": example["targets"].clone(), "images": 1 - example["images"]}
    other["targets"][:, 1:] = 50
    with torch.no_grad():
        one, two = task.predict(model, example), task.predict(model, other)
    assert all(torch.equal(one[name], two[name]) for name in ("features", "colors", "shares", "pointer"))


def test_training_copies_true_colours(task, model, batch):
    example = task.training_example(batch, generator())
    assert example["known"].all() and not task.example(batch, generator())["known"][:, 1:].any()
    with torch.no_grad():
        prediction = task.predict(model, example)
    assert torch.allclose(prediction["shares"].sum(dim=2), torch.ones(2, 4, 36, 36), atol=1e-4)
    right = prediction["shares"].gather(2, prediction["clusters"][:, :, None])[:, 1:]
    assert task.loss(example, prediction)[0].item() == pytest.approx(-right.clamp(min=1e-4).log().mean().item())


def test_masks_are_carried_from_frame_1_alone(task, model, batch):
    example = task.example(batch, generator())
    masks = torch.zeros(2, 4, 144, 144, dtype=torch.long)
    masks[:, :, 40:80, 60:100] = 255
    other = masks.clone()
    other[:, 1:] = 3
    with torch.no_grad():
        one, two = (task.predict(model, {**example, "masks": given})["followed"] for given in (masks, other))
    assert torch.equal(one, two) and set(one.unique().tolist()) <= {0, 255}
    assert (one[:, 0] == masks[:, 0]).float().mean() > 0.98


def test_objects_of_a_still_clip_stay(clip_folder):
    """Nothing moves: keeping the mask is perfect, and pointers, though untrained, keep most of it, not only one frame's."""
    task = create("video_color", temperature=0.015)
    torch.manual_seed(0)
    clips = load_to_score([clip_folder], limit=1)
    rows = next(iter(clips.rows.values()))
    rows[:] = rows[0]
    clips.masks = {name: readers[:1] * 6 for name, readers in clips.masks.items()}
    metrics = evaluate(task, task.build().eval(), clips)
    assert metrics["j_and_f_identity"] == 1 and metrics["ab_rmse_identity"] == 0
    assert metrics["j_and_f"] == pytest.approx((metrics["j"] + metrics["f"]) / 2) and 0.4 < metrics["j_and_f"] < 1


def test_a_single_frame_is_refused(clip):
    with pytest.raises(ValueError, match="single frame") as caught:
        inference.load("video_color", "untrained").run(Clip(clip.frames[:1], 12))
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


# Training


def test_clusters_come_from_the_data(photos):
    """The same data, the same clusters; they are kept in the weights and so come back with them."""
    task, _ = with_settings(type(create("video_color")), {"size": "48"})
    one, other = task.build(), task.build()
    fresh = one.centres.clone()
    for model in (one, other):
        task.prepare(model, Clips.moving(photos))
    assert torch.equal(one.centres, other.centres) and not torch.equal(one.centres, fresh)
    assert one.centres.shape == (16, 2) and len(one.centres.unique(dim=0)) == 16 and one.centres.abs().max() < 128
    assert "centres" in one.state_dict()
    colors = torch.rand(3, 2, 5, 5) * 40 - 20
    far = (colors.movedim(1, -1)[..., None, :] - one.centres).square().sum(dim=-1)
    assert torch.equal(one.quantise(colors), far.argmin(dim=-1))


def test_train_prepares_and_learns(photos, clip_folder):
    """Pointing gets better: on moving photos and clips alike, within a few steps of a small network."""
    task, recipe = with_settings(type(create("video_color")), {key: json.dumps(value) for key, value in SMALL.items()}
                                 | {"batch": "4", "precision": "float32", "lr": "3e-3"})  # fmt: skip
    learn, watch = load_clips([clip_folder]).apart()
    snapshots = list(train(task, learn, recipe, steps=40, every=0))
    model, losses = snapshots[-1].model, [snapshot.loss for snapshot in snapshots]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])
    assert not torch.equal(model.centres, task.build().centres)
    metrics = evaluate(task, model, watch)
    assert {"j_and_f", "j", "f", "j_and_f_identity", "ab_rmse"} <= metrics.keys()


# The tab


def test_still_and_moving_panels(clip):
    runner = inference.load("video_color", "untrained")
    result = runner.run(clip, frames=8, frame=96)
    panels = {panel.name: panel for panel in result.panels}
    assert panels["together"].video.shape == (8, 288, 864, 3) and panels["grey"].video.shape == (8, 288, 288, 3)
    assert panels["colored"].fps == clip.fps and result.numbers["frames"] == 8
    assert panels["asked"].title == "Frame 8", "a frame beyond the last is the last"
    assert (panels["grey"].video[..., 0] == panels["grey"].video[..., 1]).all()
    grey, colored, true = (panels["together"].video[:, :, x : x + 288].astype(int) for x in (0, 288, 576))
    assert (panels["colored"].video == colored).all()
    assert abs(colored[0] - true[0]).mean() < 4 < abs(grey[0] - true[0]).mean(), "frame 1 has its own colours"
    assert "followed" not in panels and all(len(panel.caption) <= 40 for panel in result.panels)


def test_strokes_are_followed(clip):
    result = inference.load("video_color", "untrained").run(clip, frames=6, strokes=STROKES)
    panels = {panel.name: panel for panel in result.panels}
    assert panels["followed"].video.shape == (6, 288, 288, 3)
    share = drawing.painted(STROKES, 144).mean()
    assert result.numbers["area_first"] == pytest.approx(share, abs=0.01) and 0 <= result.numbers["area_last"] <= 1
    assert panels["first"].brush and (panels["first"].image != clip.frames[0]).any()


def test_a_click_asks_for_a_place(clip):
    """Asked in frame 2 for a place that hardly moved, an untrained network points near it."""
    runner = inference.load("video_color", "untrained")
    controls = runner.run(clip, frames=4, frame=2).controls
    changes = runner.click(clip, 0, controls, "asked", 0.25, 0.75)
    assert changes == {"pixel": "25.0 75.0"}
    one, other = (runner.run(clip, **{**controls, "pixel": pixel}) for pixel in ("25.0 75.0", "75 25"))
    pointers = [next(panel.image for panel in result.panels if panel.name == "pointer") for result in (one, other)]
    assert (pointers[0] != pointers[1]).any() and one.numbers["pointed_distance"] < 60


def test_controls_take_no_other_chance(task, batch):
    states = []
    for knobs in ({}, {"pixel": "5 5"}, {"frames": 2}, {"strokes": STROKES, "recent": 0}):
        rng = generator(3)
        task.example(batch, rng, **knobs)
        states.append(rng.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_recent_frames_matter(clip):
    runner = inference.load("video_color", "untrained")
    one, other = (runner.run(clip, frames=6, recent=recent).numbers["ab_rmse"] for recent in (0, 2))
    assert one != other


def test_long_clips_report_and_can_be_cancelled(clip):
    runner, heard = inference.load("video_color", "untrained"), []
    with listening(lambda done, of, doing: heard.append((done, of, doing))):
        runner.run(clip)
    assert heard[:2] == [(0, 2, "frames encoded"), (1, 2, "frames encoded")] and heard[-1] == (23, 23, "frames coloured")
    for stage in ("frames encoded", "frames coloured"):
        with pytest.raises(Cancelled), listening(lambda done, of, doing, stage=stage: doing != stage or done < 1):
            runner.run(clip)
    assert runner.run(clip).panels, "and the next one runs"


def test_two_dozen_frames_in_a_second_or_two(clip):
    runner = inference.load("video_color", "untrained")
    runner.run(clip, strokes=STROKES)
    start = time.process_time()
    runner.run(clip, strokes=STROKES)
    assert time.process_time() - start < 3, "of processor time; a machine of 2024 takes 0.8"


def test_portrait_and_tiny_clips(photo):
    pixels = np.asarray(photo)
    runner = inference.load("video_color", "untrained")
    for frames in (pixels[None, :, 100:300].repeat(2, axis=0), pixels[None, :1, :1].repeat(3, axis=0)):
        result = runner.run(Clip(np.ascontiguousarray(frames), 60.0), strokes=STROKES)
        json.dumps(result.numbers, allow_nan=False)
        assert all(panel.video is None or panel.fps == 60 for panel in result.panels)
