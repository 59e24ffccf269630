"""Clips as people upload them: the only place that decodes, orients, limits and encodes videos.

``load_clip`` turns any accepted file into the same thing, upright 8-bit RGB frames at an even pace, small enough to work on:
the first ``KEEP_SECONDS``, at most ``MAX_FPS`` frames a second, the short side at most ``SHORT_SIDE`` pixels. Sound is not
read. Whatever is wrong with a file ends as a ``ValueError`` whose text can be shown as it is.

An upload never chooses what FFmpeg does with it: its first bytes name one of three containers, no other demuxer runs, nothing
but the file itself is ever opened (a playlist could name any file or address), and only known codecs are decoded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

from .images import CONTROL_BYTES, DOCUMENTS, Refused, load_photo, read_upload, shown_name, to_rgb
from .progress import Cancelled, steps
from .texts import later

# PyAV is imported where it is used: it loads many libraries, and most runs never see a clip.

MAX_MB = 100
MAX_SIDE = 4096  # pixels: 4K yes, 8K no
KEEP_SECONDS = 10
MAX_FPS = 12.5  # 24, 25, 30 and 60 frames a second are thinned to 12, 12.5, 10 and 12
MAX_FRAMES = int(KEEP_SECONDS * MAX_FPS)
FPS = 12.0  # of what has no pace of its own
SHORT_SIDE = 288
ACCEPTED = later("MP4, MOV, WebM, MKV, AVI, GIF and animated WebP")
LIMITS = later(f"{ACCEPTED}, at most {MAX_MB} MB; the first {KEEP_SECONDS} seconds are used.")

_LONG_SIDE = 1024
_SLACK = 0.003  # seconds: time stamps are often rounded to milliseconds
_MAX_DECODED = 2.5e9  # pixels: ten seconds of 4K at 30 frames a second; of what takes longer, the first part is used
_CODECS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "dvvideo", "rawvideo")
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PICTURE_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_COVER_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_UNSPECIFIED, _BT709 = 2, 1  # how FFmpeg numbers colour spaces

Timed = tuple[float, Callable[[], np.ndarray]]  # when a frame is shown, in seconds, and what makes its pixels


@dataclass(frozen=True)
class Clip:
    """Frames (T, H, W, 3) uint8, upright RGB, T at least 1, and how many of them pass in a second."""

    frames: np.ndarray
    fps: float = FPS

    def __post_init__(self):
        assert self.frames.dtype == np.uint8 and self.frames.ndim == 4 and self.frames.shape[3] == 3 and len(self.frames)


def load_clip(path: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Clip:
    """The clip in a file. ``path`` may also be a file open for reading bytes.

    The content decides the format (``ACCEPTED``), not the file's name. Rotation and mirroring by a display matrix are applied,
    as are pixels that are not square; transparency is blended over white. Frames keep their own shape; where a clip pauses,
    the frame shown is repeated, so that time passes evenly. A GIF that does not move is a clip of one frame. A file that
    breaks off is used as far as it can be decoded. Long decoding is reported to ``progress``, and can be cancelled there.

    Raises ValueError with one sentence for a person. The file is called by its base name, or that of ``name`` where given.
    """
    return read_upload(path, name, "clip", _decode)


def load_frames(paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], fps: float = FPS) -> Clip:
    """Picture files as a clip: those given, in their order, or those of a folder, by name; at most ``MAX_FRAMES`` of them.

    All are brought to the shape of the first. Raises ValueError with one sentence where one cannot be read.
    """
    if isinstance(paths, (str, os.PathLike)):
        if not os.path.isdir(paths):
            raise ValueError(f"There is no folder {shown_name(os.fspath(paths))}.")
        paths = sorted(entry.path for entry in os.scandir(paths) if entry.is_file() and entry.name[0] != ".")
    frames: list[np.ndarray] = []
    for path in paths[:MAX_FRAMES]:
        photo = load_photo(path)
        frames.append(_resized(photo, frames[0].shape[1::-1] if frames else _fit(*photo.size)))
    if not frames:
        raise ValueError("There are no pictures to make a clip of.")
    return Clip(np.stack(frames), float(fps))


def squares(clip: Clip, size: int) -> np.ndarray:
    """The central square of every frame, resized with Lanczos: (T, size, size, 3) uint8."""
    height, width = clip.frames.shape[1:3]
    side = min(width, height)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return np.stack([_resized(Image.fromarray(frame), (size, size), box) for frame in clip.frames])


def encode_mp4(frames: np.ndarray, fps: float) -> bytes:
    """Frames (T, H, W, 3) uint8, H and W even, as an H.264 MP4 that every browser plays. Same frames, same bytes."""
    import av

    count, height, width, _ = frames.shape
    assert frames.dtype == np.uint8 and count >= 1 and fps > 0
    assert height % 2 == 0 and width % 2 == 0, "H.264 halves the colours' resolution"
    file = BytesIO()
    # The index is put before the pictures, so that a browser starts at once, into a place kept free for it: FFmpeg's faststart
    # would have to open the file a second time, and there is no file.
    with av.open(file, "w", format="mp4", options={"moov_size": str(4096 + 64 * count)}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        # One thread, and no weighing of blocks by what later frames copy from them: with either, bytes differ between runs.
        context.options = {"crf": "18", "preset": "veryfast", "bf": "0", "x264-params": "mbtree=0:rc-lookahead=0:log-level=none"}
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # 16 to 235
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="AREA")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def camera_move(photo: Image.Image, frames: int = 24, size: int = 144, fps: float = FPS) -> Clip:
    """A clip made of one photo: the camera pans along an eight, turns a little and zooms in to 1.35 and back, as a loop."""
    assert frames >= 1 and size >= 1
    window = 2 * size  # drawn twice as large and then halved: free of jagged edges
    scale = 1.4 * window / min(photo.size)
    photo = photo.convert("RGB").resize([math.ceil(scale * side) for side in photo.size], Image.Resampling.LANCZOS)
    moved = []
    for turn in np.arange(frames) * (2 * math.pi / frames):
        zoom, angle = 1.175 - 0.175 * math.cos(turn), math.radians(6) * math.sin(turn)
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        reach = (abs(cos) + abs(sin)) * window / 2  # half of what the turned window covers: it never leaves the photo
        pan_x, pan_y = (min(side / 2 - reach, 0.15 * window) for side in photo.size)
        x, y = photo.width / 2 + pan_x * math.sin(turn), photo.height / 2 + pan_y * math.sin(2 * turn)
        affine = (cos, -sin, x - size * (cos - sin), sin, cos, y - size * (sin + cos))
        view = photo.transform((window, window), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        moved.append(np.asarray(view.reduce(2)))
    return Clip(np.stack(moved), float(fps))


def _decode(file: BinaryIO, shown: str) -> Clip:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise Refused(f"{shown} is empty (0 bytes).")
    if size > MAX_MB * 1_000_000:
        raise Refused(f"{shown} has {size / 1e6:.1f} MB, but the limit is {MAX_MB} MB.")
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    container = _container(head)
    if container is None:
        raise Refused(f"{shown} is {_what_it_is(head)}; accepted are {ACCEPTED}.")
    progress = steps(range(MAX_FRAMES), "reading the clip")
    times, frames = [], []
    try:
        for seconds, pixels in _animation(file, shown) if container == "picture" else _film(file, container, shown):
            if times and seconds - times[0] >= KEEP_SECONDS:
                break
            if not times or seconds - times[-1] >= 1 / MAX_FPS - _SLACK:
                next(progress, None)
                frames.append(pixels())
                times.append(seconds)
    except Exception as error:
        if not frames or isinstance(error, Cancelled):
            raise
    if not frames:
        raise Refused(f"{shown} holds no frame that can be decoded.")
    return _evenly(np.array(times) - times[0], frames)


def _container(head: bytes) -> str | None:
    """Which demuxer may read a file that begins like this; "picture" is Pillow, None nobody."""
    if head[4:8] in _MOV_BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    is_animated_webp = head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and head[20] & 2
    return "picture" if is_animated_webp or head.startswith((b"GIF87a", b"GIF89a")) else None


def _what_it_is(head: bytes) -> str:
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG")) or head[4:8] == b"ftyp" or head[8:12] == b"WEBP":
        return "a photo, not a clip"
    for signature, kind in DOCUMENTS:
        if head.startswith(signature):
            return f"{kind}, not a clip"
    return "a text file, not a clip" if CONTROL_BYTES.isdisjoint(head) else "not a clip that can be read here"


def _film(file: BinaryIO, container_format: str, shown: str) -> Iterator[Timed]:
    """The frames of a film, in the order they are shown; whoever takes them decides which are worth their pixels."""
    import av

    def refuse(*_):
        raise PermissionError("a clip is one file")

    limits = {"codec_whitelist": ",".join(_CODECS), "max_pixels": str(MAX_SIDE**2)}
    with av.open(file, "r", format=container_format, options=limits, io_open=refuse, metadata_errors="replace") as container:
        streams = [stream for stream in container.streams.video if not stream.disposition.value & _COVER_PICTURE]
        if not streams:
            raise Refused(f"{shown} holds no video.")
        stream, context = streams[0], streams[0].codec_context
        if context is None or context.name not in _CODECS:
            raise Refused(f"{shown} is encoded in a way that cannot be read here; save it as MP4 (H.264) first.")
        _check_size(context.width, context.height, shown)
        context.options = {"max_pixels": limits["max_pixels"]}  # a stream can grow on the way
        context.thread_type, context.thread_count = "AUTO", min(4, os.cpu_count() or 1)
        size, seconds, decoded = None, 0.0, 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # one damaged packet does not spoil the rest
                frames = []
            for frame in frames:
                seconds = float(frame.time if frame.time is not None else seconds + 1 / (stream.average_rate or 25))
                shape = float(stream.sample_aspect_ratio or 1)  # of a pixel
                size = size or _fit(frame.width * (shape if 0.1 < shape < 10 else 1), frame.height)
                yield seconds, partial(_upright, frame, *size)
            decoded += max(context.width * context.height, 1 << 16)  # small ones take time, too
            if decoded > _MAX_DECODED:
                break


def _upright(frame, width: int, height: int) -> np.ndarray:
    """A decoded frame as RGB pixels of this size, then turned and mirrored as its display matrix says."""
    space = "ITU709" if frame.colorspace == _UNSPECIFIED and frame.height >= 720 else None  # as players guess
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA", src_colorspace=space)
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is not None:
        a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()  # seen at x = a column + c row, y = b column + d row
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return pixels


def _animation(file: BinaryIO, shown: str) -> Iterator[Timed]:
    """The frames of a GIF or WebP, by Pillow, which knows their transparency."""
    try:
        image = Image.open(file, formats=("GIF", "WEBP"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(f"{shown} has frames larger than the limit of {MAX_SIDE} x {MAX_SIDE} pixels.") from None
    _check_size(*image.size, shown)
    size, seconds = _fit(*image.size), 0.0
    for number in range(int(_MAX_DECODED / (image.width * image.height))):
        try:
            image.seek(number)
        except EOFError:
            return
        image.load()
        yield seconds, lambda: _resized(to_rgb(image), size)
        duration = image.info.get("duration", 0)
        seconds += (duration if duration > 10 else 100) / 1000  # what browsers make of frames without a duration


def _check_size(width: int, height: int, shown: str) -> None:
    if max(width, height) > MAX_SIDE:
        raise Refused(f"{shown} has frames of {width} x {height} pixels, but the limit is {MAX_SIDE} x {MAX_SIDE}.")


def _fit(width: float, height: float) -> tuple[int, int]:
    """The size to work at: never enlarged, never less than a pixel."""
    scale = min(1, SHORT_SIDE / min(width, height), _LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(image: Image.Image, size: tuple[int, int], box: tuple | None = None) -> np.ndarray:
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box))


def _evenly(times: np.ndarray, frames: list[np.ndarray]) -> Clip:
    """Frames at their times as a clip of an even pace: that of most frames; over a pause the frame before it is repeated."""
    if len(frames) == 1:
        return Clip(frames[0][None])
    gaps = np.diff(times)
    step = gaps[gaps < 1.5 * np.median(gaps)].mean()
    ticks = np.arange(min(MAX_FRAMES, round(times[-1] / step) + 1)) * step
    return Clip(np.stack([frames[i] for i in np.searchsorted(times, ticks + step / 2) - 1]), round(float(1 / step), 2))
