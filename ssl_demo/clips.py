"""Clips for training and measuring: sequences of frames, and photos set in motion -> batches, a pure function of (seed, step).

A picture named `NAME/frames/00000.webp` is a frame of the clip NAME, `NAME/masks/00000.png` holds the numbers of the objects on
that frame, and every other picture is a photo. Frames and photos are squares, cached as `data.load_photos` does.
"""

import io
import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .data import Photos, files, load_photos

HELD_OUT = ("blackswan", "car-shadow", "cows", "dog", "kite-surf", "parkour")  # of DAVIS: for scores only, never trained on
VALIDATION = ("car-roundabout", "goat", "libby")  # of DAVIS: kept apart while training, so that recipes are chosen on them
FRAMES = 4  # of a clip in training: three to copy from and one to colour, as in Vondrick et al. 2018
REAL = 0.5  # share of a batch that are clips, where there are photos too
_PLACE = re.compile(r"^(?:(.*)/)?(frames|masks)/([^/]+)\.\w+$")  # the clip, which of the two, the frame


@dataclass
class Clips:
    """Sequences, `rows[name]` their frames among `frames` in order, `masks[name]` what reads their masks; and single photos."""

    frames: Photos
    photos: Photos
    rows: dict[str, np.ndarray]
    masks: dict[str, list[Callable[[], bytes]]]

    @staticmethod
    def moving(photos: Photos) -> "Clips":
        """Photos alone, to be set in motion."""
        return Clips(photos.take([]), photos, {}, {})

    def __len__(self) -> int:
        return len(self.rows) + len(self.photos)

    @property
    def names(self) -> list[str]:
        """Of all sequences, then of all photos."""
        return [*self.rows, *self.photos.names]

    def sample(self, count: int) -> Tensor:
        """About so many frames and photos as single pictures, evenly taken from all: (N, 3, side, side) float32 in [0, 1]."""
        rows = np.concatenate([*self.rows.values(), []]).astype(int)
        kinds = [(self.frames, rows), (self.photos, np.arange(len(self.photos)))]
        return torch.cat([source.tensor(places[:: max(1, 2 * len(places) // count)]) for source, places in kinds])

    def named(self, names, photos: bool = False) -> "Clips":
        """Only these sequences, and the photos if wanted."""
        kept = [name for name in self.rows if name in names]
        masks = {name: self.masks[name] for name in kept if name in self.masks}
        return replace(self, rows={name: self.rows[name] for name in kept}, masks=masks,
                       photos=self.photos if photos else self.photos.take([]))

    def apart(self) -> tuple["Clips", "Clips"]:
        """(to learn from, to watch the training by): the latter has masks; neither has what is held out for scores."""
        ours = [name for name in self.rows if _last(name) not in HELD_OUT]
        watch = [name for name in ours if _last(name) in VALIDATION and name in self.masks]
        if not watch:
            watch = [name for name in ours if name in self.masks][:1]
        learn = [name for name in ours if name not in watch]
        learned = self.named(learn if learn or len(self.photos) else ours, photos=True)
        if not len(learned):
            raise ValueError("There is nothing here to train on: no clip but those held out for scores, and no photo.")
        return learned, self.named(watch)

    def whole(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sequence that has masks: all its frames (1, T, 3, size, size), its masks (1, T, H, W) at their own resolution."""
        for name, readers in self.masks.items():
            frames = self.frames.tensor(self.rows[name])
            if frames.shape[-1] != size:
                frames = F.interpolate(frames, size=(size, size), mode="bicubic", antialias=True).clamp_(0, 1)
            yield frames[None], torch.stack([_mask(read) for read in readers])[None]


def load_clips(paths, side: int = 144, limit: int | None = None, seed: int = 0) -> Clips:
    """Clips and photos in folders (any depth) and tars. `limit` takes so many sequences and so many photos, drawn by the seed.

    Raises ValueError with one sentence for a path that cannot be read.
    """
    paths = [paths] if isinstance(paths, (str, bytes)) or not hasattr(paths, "__iter__") else list(paths)
    frames = load_photos(paths, side, seed=seed, wanted=lambda name: _kind(name) == "frames")
    photos = load_photos(paths, side, limit=limit, seed=seed, wanted=lambda name: _kind(name) is None)
    rows: dict[str, list[int]] = {}
    places = {}
    for row, name in enumerate(frames.names):
        clip, _, frame = _PLACE.match(posixpath.normpath(name)).groups()
        rows.setdefault(clip or "", []).append(row)
        places[clip, frame] = row
    rows = {clip: numbers for clip, numbers in rows.items() if len(numbers) > 1}  # one frame is no clip
    if limit is not None:
        rows = {name: rows[name] for name in np.random.default_rng(seed).permutation(list(rows))[:limit]}
    readers: dict[str, list] = {}
    for name, read in files(paths, lambda name: _kind(name) == "masks").items():
        clip, _, frame = _PLACE.match(posixpath.normpath(name)).groups()
        if (clip, frame) in places:
            readers.setdefault(clip or "", []).append(read)
    masks = {clip: readers[clip] for clip in rows  # one on every frame, and something in frame 1 to be followed
             if len(readers.get(clip, [])) == len(rows[clip]) and _mask(readers[clip][0]).any()}
    return Clips(frames, photos, {clip: np.array(numbers) for clip, numbers in rows.items()}, masks)


def load_to_score(paths, side: int = 144, limit: int | None = None, seed: int = 0) -> Clips:
    """The clips with a mask on every frame; where some of those held out for scores are among them, only these.

    Raises ValueError with one sentence where there is none.
    """
    clips = load_clips(paths, side)
    names = [name for name in clips.masks if _last(name) in HELD_OUT] or list(clips.masks)
    if not names:
        raise ValueError("There is no clip to score here: one is NAME/frames/* with a mask for every frame in NAME/masks/*.png.")
    if len(names) < len(clips.masks):
        print(f"scored on {', '.join(map(_last, names))}: the other {len(clips.masks) - len(names)} with masks may have been "
              "trained on", file=sys.stderr)
    if limit is not None:
        names = list(np.random.default_rng(seed).permutation(names)[:limit])
    return clips.named(names)


class ClipBatches:
    """`batches(step)` is (batch_size / world, FRAMES, 3, size, size) float32 in [0, 1], a function of (seed, step).

    A clip of a batch is either frames of a sequence, 1 to 3 apart, all cropped and mirrored alike; or a photo under a camera that
    drifts, turns and zooms, over which a soft-edged ellipse of another photo moves on a way of its own. Nothing held out for
    scores is ever among them. Rank r of `world` computes rows r::world of the same batch.
    """

    def __init__(self, clips: Clips, batch_size: int, size: int, seed: int = 0, crop: tuple[float, float] = (0.5, 1.0),
                 flip: bool = True, rank: int = 0, world: int = 1):
        assert batch_size >= 1 and batch_size % world == 0 and 0 <= rank < world
        self.frames, self.photos = clips.frames, clips.photos
        self.rows = [rows for name, rows in clips.rows.items() if _last(name) not in HELD_OUT]
        assert self.rows or len(self.photos), "nothing to train on"
        self.batch_size, self.size, self.seed, self.crop, self.flip = batch_size, size, seed, crop, flip
        self.rank, self.world = rank, world
        self.weights = np.array([len(rows) for rows in self.rows], dtype=np.float64) ** 0.5  # a long clip is not all there is

    def __call__(self, step: int) -> Tensor:
        out = torch.empty(len(range(self.rank, self.batch_size, self.world)), FRAMES, 3, self.size, self.size)
        for place, number in enumerate(range(self.rank, self.batch_size, self.world)):
            chance = np.random.default_rng([self.seed, step, number])  # each clip's own, so that sharing the batch changes none
            real = chance.random() < REAL if self.rows and len(self.photos) else bool(self.rows)
            out[place] = self._real(chance) if real else self._moved(chance)
        return out

    def _real(self, chance: np.random.Generator) -> Tensor:
        rows = self.rows[chance.choice(len(self.rows), p=self.weights / self.weights.sum())]
        gaps = np.minimum(chance.integers(1, 4, FRAMES - 1), max(1, (len(rows) - 1) // (FRAMES - 1)))
        times = np.concatenate([[0], np.cumsum(gaps)])
        first = chance.integers(0, max(1, len(rows) - times[-1]))
        chosen = rows[np.minimum(first + times, len(rows) - 1)]
        if chance.random() < 0.5:  # backwards: what leaves the picture enters it
            chosen = chosen[::-1]
        frames = self.frames.tensor(chosen)
        scale = chance.uniform(*self.crop) ** 0.5
        x, y = chance.uniform(scale - 1, 1 - scale, 2)
        mirror = -1 if self.flip and chance.random() < 0.5 else 1
        matrix = torch.tensor([[mirror * scale, 0, x], [0, scale, y]], dtype=torch.float32)
        return _sample(frames, matrix.expand(FRAMES, -1, -1), self.size)

    def _moved(self, chance: np.random.Generator) -> Tensor:
        ground, other = self.photos.tensor(chance.integers(0, len(self.photos), 2))
        camera, thing = _drift(chance, self.crop, 0.06), _drift(chance, self.crop, 0.10)
        # The ellipse is fixed to the other photo and moves with it.
        scale = float(thing[0, 0].norm())
        centre = thing[0, :, 2] + scale * torch.from_numpy(chance.uniform(-0.6, 0.6, 2)).float()
        radii = scale * torch.from_numpy(chance.uniform(0.15, 0.5, 2)).float()
        far = ((_places(thing, self.size) - centre) / radii).square().sum(dim=3)  # (FRAMES, size, size), 1 on the ellipse
        inside = torch.sigmoid((1 - far) * 12)[:, None]
        return torch.lerp(_sample(ground, camera, self.size), _sample(other, thing, self.size), inside)


def _drift(chance: np.random.Generator, crop: tuple[float, float], step: float) -> Tensor:
    """FRAMES affine maps (2, 3) of a view that moves, turns and zooms smoothly over a photo: its speed changes a little."""
    scale = chance.uniform(*crop) ** 0.5
    move, turn, zoom = chance.uniform(-step, step, 2), chance.normal(0, 0.04), chance.normal(0, 0.03)
    time = np.concatenate([[0], np.cumsum(chance.uniform(0.6, 1.4, FRAMES - 1))])
    angle, size = turn * time, scale * np.exp(zoom * time)
    x, y = chance.uniform(scale - 1, 1 - scale, 2)[:, None] + move[:, None] * time
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    return torch.from_numpy(np.stack([np.stack([cos, -sin, x], 1), np.stack([sin, cos, y], 1)], 1)).float()


def _places(maps: Tensor, size: int) -> Tensor:
    """Where each pixel of a view (size, size) looks under affine maps (T, 2, 3), in a picture that spans -1 ... 1."""
    return F.affine_grid(maps, (len(maps), 3, size, size), align_corners=False)


def _sample(images: Tensor, maps: Tensor, size: int) -> Tensor:
    """Images (T, 3, H, W), or one (3, H, W), seen through affine maps (T, 2, 3); beyond its edges a picture is mirrored."""
    images = images.expand(len(maps), -1, -1, -1)
    return F.grid_sample(images, _places(maps, size), mode="bilinear", padding_mode="reflection", align_corners=False)


def _mask(read: Callable[[], bytes]) -> Tensor:
    """The central square of a mask, (S, S): what its pixels say, as numbers."""
    try:
        with Image.open(io.BytesIO(read()), formats=["PNG"]) as image:
            values = np.asarray(image if image.mode in ("P", "L", "1", "I", "I;16") else image.convert("L"))
    except Exception as error:  # decoders raise almost anything on damaged data
        raise ValueError(f"A mask cannot be read: it must be a PNG file ({type(error).__name__}).") from None
    side = min(values.shape)
    top, left = ((length - side) // 2 for length in values.shape)
    return torch.from_numpy(values[top : top + side, left : left + side].astype(np.int64))


def _kind(name: str) -> str | None:
    match = _PLACE.match(posixpath.normpath(name))
    return match and match.group(2)


def _last(name: str) -> str:
    return posixpath.basename(name)
