"""Clips: what counts as one, which are kept apart, batches as a pure function of (seed, step); and J and F as DAVIS counts."""

import math
import tarfile

import numpy as np
import pytest
import skimage.draw
import skimage.morphology
import torch
from PIL import Image

from ssl_demo import clips as clips_module
from ssl_demo.clips import FRAMES, HELD_OUT, VALIDATION, ClipBatches, Clips, load_clips, load_to_score
from ssl_demo.masks import contour, j_and_f, region


@pytest.fixture(scope="module")
def clips(clip_folder, folder):
    return load_clips([clip_folder, folder])


def write(path, name, frames=4, masks=True, size=(64, 48), mode="P", value=1):
    """A sequence of noise in which a bright square rests."""
    pixels = np.random.default_rng(len(name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    for kind in ("frames", "masks")[: 1 + masks]:
        (path / name / kind).mkdir(parents=True)
    for t in range(frames):
        Image.fromarray(pixels).save(path / name / "frames" / f"{t:05d}.png")
        if masks:
            mask = np.zeros((size[1], size[0]), np.uint8)
            mask[10:30, 20:40] = value
            Image.fromarray(mask).convert(mode).save(path / name / "masks" / f"{t:05d}.png")
    return path


# What is found


def test_frames_masks_and_photos_are_told_apart(clips, photos):
    assert list(clips.rows) == list(clips.masks) == list("abcdefg") and len(clips.frames) == 42
    assert len(clips.photos) == len(photos) and len(clips) == 39
    assert [rows.tolist() for rows in clips.rows.values()] == [list(range(6 * i, 6 * i + 6)) for i in range(7)]


def test_a_tar_holds_the_same(clips, clip_folder, tmp_path):
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        tar.add(clip_folder, ".")  # names begin with "./"
    packed = load_clips([tmp_path / "clips.tar"])
    assert list(packed.rows) == list("abcdefg") and not len(packed.photos)
    assert (packed.frames.array == clips.frames.array).all()
    for one, other in zip(packed.whole(72), clips.whole(72)):
        assert all(map(torch.equal, one, other))


def test_masks_are_cropped_as_frames_are(tmp_path):
    """The central square of frame and mask shows the same thing, whatever the mode of the picture; the numbers are kept."""
    for number, mode in enumerate("LP1"):
        path = write(tmp_path / mode, "one", mode=mode, value=255 if mode == "1" else 3)
        ((frames, masks),) = load_clips([path], side=48).whole(48)
        assert frames.shape == (1, 4, 3, 48, 48) and masks.shape == (1, 4, 48, 48)
        truth = torch.zeros(48, 48, dtype=torch.bool)
        truth[10:30, 12:32] = True  # eight columns are cut off at the left
        assert ((masks > 0) == truth).all() and masks.max() == (1 if mode == "1" else 3), number


def test_clips_without_a_mask_on_every_frame_are_not_scored(tmp_path):
    write(write(write(tmp_path, "whole"), "bare", masks=False), "some")
    (tmp_path / "some/masks/00002.png").unlink()
    write(tmp_path, "nothing", value=0)
    write(tmp_path, "single", frames=1)
    found = load_clips([tmp_path])
    assert set(found.rows) == {"whole", "bare", "some", "nothing"} and list(found.masks) == ["whole"]
    assert list(load_to_score([tmp_path]).rows) == ["whole"]


def test_a_sequence_itself_may_be_named(clip_folder):
    found = load_clips([clip_folder / "a"])
    assert len(found.rows) == len(found.masks) == 1


def test_limit(clip_folder, folder):
    few = load_clips([clip_folder, folder], limit=3, seed=1)
    assert len(few.rows) == len(few.masks) == len(few.photos) == 3
    assert list(load_to_score([clip_folder], limit=2, seed=1).rows) == list(load_to_score([clip_folder], limit=2, seed=1).rows)
    assert len(load_to_score([clip_folder], limit=2)) == 2


def test_nothing_to_score(folder, tmp_path):
    for path in (folder, write(tmp_path, "bare", masks=False)):
        with pytest.raises(ValueError, match="no clip to score") as caught:
            load_to_score([path])
        assert str(caught.value).endswith(".")


# What is kept apart


def test_held_out_clips_are_never_trained_on(tmp_path, capsys):
    for name in (*HELD_OUT, *VALIDATION, "mine"):
        write(tmp_path, name)
    clips = load_clips([tmp_path])
    learn, watch = clips.apart()
    assert list(learn.rows) == ["mine"] and set(watch.rows) == set(VALIDATION) and not len(watch.photos)
    batches = ClipBatches(clips, 2, 32)  # not even when somebody forgets to keep them apart
    assert len(batches.rows) == 1 + len(VALIDATION)
    scored = load_to_score([tmp_path])
    assert set(scored.rows) == set(HELD_OUT) and "may have been trained on" in capsys.readouterr().err


def test_only_held_out_clips_are_nothing_to_train_on(tmp_path):
    with pytest.raises(ValueError, match="nothing here to train on"):
        load_clips([write(tmp_path, "dog")]).apart()


def test_apart(clips, photos):
    learn, watch = clips.apart()
    assert list(watch.rows) == ["a"] and list(learn.rows) == list("bcdefg") and len(learn.photos) == len(photos)
    learn, watch = Clips.moving(photos).apart()
    assert not len(watch) and len(learn) == len(photos)


def test_sample(clips, photos):
    assert clips.sample(16).shape[1:] == (3, 144, 144) and 8 <= len(clips.sample(16)) <= 24
    assert Clips.moving(photos).sample(1000).shape[0] == len(photos)


# Batches


def test_batches_are_a_function_of_seed_and_step(clips):
    batches = ClipBatches(clips, 6, 48, seed=1)
    one = batches(3)
    assert one.shape == (6, FRAMES, 3, 48, 48) and one.dtype == torch.float32 and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, ClipBatches(clips, 6, 48, seed=1)(3))
    assert not torch.equal(one, batches(4)) and not torch.equal(one, ClipBatches(clips, 6, 48, seed=2)(3))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch(clips, world):
    whole = ClipBatches(clips, 6, 48)(5)
    for rank in range(world):
        assert torch.equal(ClipBatches(clips, 6, 48, rank=rank, world=world)(5), whole[rank::world])


def test_frames_of_a_clip_are_cropped_alike(tmp_path):
    """Of a scene that stands still all frames are the same; of one that moves they are not."""
    still = ClipBatches(load_clips([write(tmp_path, "still", frames=9)]), 4, 32)(0)
    assert all(torch.equal(still[:, 0], still[:, t]) for t in range(1, FRAMES))
    assert not torch.equal(still[0], still[1]), "clips of a batch are cropped each on its own"


def test_frames_are_in_order_and_at_most_three_apart(tmp_path):
    (tmp_path / "ramp/frames").mkdir(parents=True)
    for t in range(40):
        Image.new("RGB", (32, 32), (5 * t,) * 3).save(tmp_path / f"ramp/frames/{t:05d}.png")
    steps = (ClipBatches(load_clips([tmp_path], side=32), 64, 16)(0).mean(dim=(2, 3, 4)) * 51).round().diff(dim=1).long()
    assert set(steps.flatten().tolist()) == {-3, -2, -1, 1, 2, 3}
    assert ((steps > 0).all(dim=1) | (steps < 0).all(dim=1)).all()
    short = load_clips([write(tmp_path / "short", "two", frames=2)])
    assert ClipBatches(short, 2, 16)(0).isfinite().all()


def test_photos_are_set_in_motion(photos):
    """Smoothly, and not all of a picture alike."""
    batch = ClipBatches(Clips.moving(photos), 16, 96)(0)
    change = batch.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
    assert (change > 0.003).all() and change.mean() < 0.2
    far = (batch[:, -1] - batch[:, 0]).abs().mean(dim=(1, 2, 3))
    assert far.mean() > change.mean()


def test_clips_and_photos_are_mixed(clips, monkeypatch):
    real = []
    monkeypatch.setattr(ClipBatches, "_real", lambda self, chance: real.append(1) or torch.zeros(FRAMES, 3, 8, 8))
    monkeypatch.setattr(ClipBatches, "_moved", lambda self, chance: torch.zeros(FRAMES, 3, 8, 8))
    ClipBatches(clips, 400, 8)(0)
    assert len(real) / 400 == pytest.approx(clips_module.REAL, abs=0.1)


# J and F


def davis_f(answer, truth):
    """F of one frame as in DAVIS's own evaluation, by another library's dilation."""
    def outline(mask):
        right, below, across = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
        right[:, :-1], below[:-1], across[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        edge = (mask ^ right) | (mask ^ below) | (mask ^ across)
        edge[-1], edge[:, -1], edge[-1, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1], False
        return edge

    disk = skimage.morphology.disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    ours, theirs = outline(answer), outline(truth)
    near = [skimage.morphology.dilation(edge.astype(np.uint8), disk) > 0 for edge in (ours, theirs)]
    count, true_count = ours.sum(), theirs.sum()
    if count == 0 or true_count == 0:
        precision, recall = (1, 1) if count == true_count else (1, 0) if count == 0 else (0, 1)
    else:
        precision, recall = (ours & near[1]).sum() / count, (theirs & near[0]).sum() / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


@pytest.mark.parametrize("shape", [(144, 144), (60, 90), (480, 480)])
def test_contour_is_that_of_davis(shape):
    random = np.random.default_rng(0)
    for _ in range(6):
        pair = np.zeros((2, *shape), dtype=bool)
        for mask in pair:
            centre, radii = random.uniform(0.2, 0.8, 2) * shape, random.uniform(0.1, 0.4, 2) * shape
            mask[skimage.draw.ellipse(*centre, *radii, shape=shape)] = True  # some are cut off by the edge
        pair[0] = pair[0] if random.random() < 0.5 else np.roll(pair[1], (2, -1), (0, 1))
        score = contour(*torch.from_numpy(pair)[:, None]).item()
        assert score == pytest.approx(davis_f(*pair), abs=1e-6)


def test_empty_masks():
    full, empty = torch.zeros(1, 20, 20, dtype=torch.bool), torch.zeros(1, 20, 20, dtype=torch.bool)
    full[:, 5:10, 5:10] = True
    assert region(empty, empty).item() == contour(empty, empty).item() == 1
    assert region(full, empty).item() == contour(full, empty).item() == contour(empty, full).item() == 0
    assert region(full, full).item() == contour(full, full).item() == 1


def test_region():
    one, other = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    one[:, :, :4], other[:, :, 2:6] = True, True
    assert region(one, other).item() == pytest.approx(1 / 3)


def test_frames_and_objects_that_count():
    """Neither the first frame nor the last; every object the same; an object that comes later is none."""
    truth = torch.zeros(1, 4, 20, 20, dtype=torch.long)
    truth[:, :, 2:8, 2:8], truth[:, :, 12:18, 12:18] = 5, 255
    answer = truth.clone()
    answer[0, 0], answer[0, 3], truth[0, 2, 0, 0] = 0, 0, 7
    assert [score.item() for score in j_and_f(answer, truth)] == [1, 1]
    answer[answer == 255] = 0
    assert [score.item() for score in j_and_f(answer, truth)] == [0.5, 0.5]
    assert j_and_f(truth[:, :2], truth[:, :2])[0].item() == 1
    assert j_and_f(truth * 0, truth * 0)[0].isnan().all()


def test_a_mask_that_is_no_picture(clip_folder, tmp_path):
    path = write(tmp_path, "one")
    (path / "one/masks/00000.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="mask"):
        load_clips([path])
