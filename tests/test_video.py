"""Every kind of clip a person may upload, encoded here, and what must come out of it."""

import io
import struct
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image

from ssl_demo import video
from ssl_demo.progress import Cancelled, listening
from ssl_demo.video import (
    ACCEPTED,
    FPS,
    KEEP_SECONDS,
    MAX_FRAMES,
    MAX_MB,
    Clip,
    camera_move,
    encode_mp4,
    load_clip,
    load_frames,
    squares,
)

RED, GREEN, BLUE = (230, 20, 20), (20, 200, 30), (20, 30, 220)
KINDS = [  # FFmpeg's names of the container and the encoder, and the encoder's pixels
    ("mp4", "libx264", "yuv420p"),
    ("mov", "libx264", "yuv420p"),
    ("mov", "mjpeg", "yuvj420p"),
    ("webm", "libvpx", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p"),
    ("matroska", "libx264", "yuv420p"),
    ("avi", "mpeg4", "yuv420p"),
    ("gif", "gif", "rgb8"),
]


def scene(count, width=64, height=48):
    """Red on the left and blue on the right, over which it becomes lighter with time, from 0 to 100 grey levels."""
    frames = np.zeros((count, height, width, 3), np.int64)
    frames[:, :, : width // 2], frames[:, :, width // 2 :] = RED, BLUE
    frames += np.linspace(0, 100, count, dtype=int)[:, None, None, None]
    return frames.clip(0, 255).astype(np.uint8)


def encoded(frames, kind=KINDS[0], rate=12, times=None, sound=False, setup=None):
    """A file made of frames; ``times`` in milliseconds where the pace is not even."""
    container_format, codec, pixel_format = kind
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = None
        if frames is not None:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = pixel_format
            stream.codec_context.options = {"preset": "ultrafast"} if codec == "libx264" else {}
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if setup:
                setup(stream)
        voice = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number, pixels in enumerate(frames if frames is not None else ()):
            frame = av.VideoFrame.from_ndarray(pixels)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if stream:
            container.mux(stream.encode(None))
        if voice:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            container.mux(voice.encode(silence))
            container.mux(voice.encode(None))
    return file.getvalue()


def load(content, name=None):
    return load_clip(io.BytesIO(content), name)


def refusal(content, name="clip.mp4"):
    """The sentence with which a file is refused; content is bytes or a path."""
    with pytest.raises(ValueError) as caught:
        load(content, name) if isinstance(content, bytes) else load_clip(content)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def turned(content, matrix):
    """An MP4 with another display matrix (a, b, c, d) in its track header: seen at x = a column + c row, y = b column + d row."""
    a, b, c, d = (value * 65536 for value in matrix)
    place = content.index(b"tkhd") + 44
    return content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[place + 36 :]


# Formats


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_content_decides_the_format(kind):
    frames = scene(6)
    clip = load(encoded(frames, kind), "holiday.txt")
    assert clip.frames.shape == frames.shape and clip.frames.dtype == np.uint8
    assert clip.fps == pytest.approx(12, abs=0.1)
    tolerance = 110 if kind[0] == "gif" else 8  # rgb8 has four blues
    for column in (8, 56):
        assert clip.frames[:, 24, column] == pytest.approx(frames[:, 24, column], abs=tolerance)


def test_a_path_may_be_text_or_a_path_object(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded(scene(3)))
    assert (load_clip(path).frames == load_clip(str(path)).frames).all() and len(load_clip(path).frames) == 3


def test_animated_webp_and_gif_have_transparency_over_white():
    frames = [Image.new("RGBA", (20, 10), (0, 0, level, 255)) for level in (0, 100, 200)]
    for frame in frames:
        frame.paste((0, 0, 0, 0), (0, 0, 10, 10))
    for options in ({"format": "WEBP", "lossless": True, "kmax": 1}, {"format": "GIF", "disposal": 2}):
        file = io.BytesIO()
        frames[0].save(file, save_all=True, append_images=frames[1:], duration=100, **options)
        clip = load(file.getvalue())
        assert clip.frames.shape == (3, 10, 20, 3) and clip.fps == 10
        assert (clip.frames[:, :, :10] == 255).all() and clip.frames[:, 5, 15, 2].tolist() == [0, 100, 200]


def test_the_end_of_an_mp4_may_hold_its_index():
    content = encoded(scene(3))
    assert content.index(b"mdat") < content.index(b"moov"), "what the other tests read"
    assert len(load(encode_mp4(scene(3), 12)).frames) == 3


# Size, time and orientation


def test_one_frame():
    clip = load(encoded(scene(1)))
    assert clip.frames.shape == (1, 48, 64, 3) and clip.fps == FPS
    file = io.BytesIO()
    Image.new("RGB", (9, 7), GREEN).save(file, "GIF")
    assert load(file.getvalue()).frames.tolist() == [[[list(GREEN)] * 9] * 7]


@pytest.mark.parametrize("kind", [("gif", "gif", "rgb8"), ("avi", "mjpeg", "yuvj444p"), ("matroska", "libx264", "yuv444p")])
def test_one_pixel(kind):
    clip = load(encoded(np.full((3, 1, 1, 3), 200, np.uint8), kind))
    assert clip.frames.shape == (3, 1, 1, 3) and abs(int(clip.frames[0, 0, 0, 0]) - 200) < 60  # a GIF has 8 reds here
    assert squares(clip, 16).shape == (3, 16, 16, 3)


NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize("rate, kept", [(60, 12), (50, 12.5), (30, 10), (NTSC, 9.99), (25, 12.5), (24, 12), (12, 12), (5, 5)])
def test_frames_are_thinned_evenly(rate, kept):
    clip = load(encoded(scene(41), rate=rate))
    every = round(rate / kept)
    assert clip.fps == pytest.approx(kept, abs=0.01) and len(clip.frames) == 40 // every + 1
    assert clip.frames[:, 24, 56, 0] == pytest.approx(scene(41)[::every, 24, 56, 0], abs=6)


def test_only_the_beginning_of_a_long_clip_is_kept_and_decoded():
    frames = np.repeat(scene(1, 16, 16), 60 * 12, axis=0)
    long = load(encoded(frames))
    assert len(long.frames) == 120 and long.fps == 12
    still = [Image.new("L", (2, 2), level) for level in (10, 200)]
    file = io.BytesIO()
    still[0].save(file, "GIF", save_all=True, append_images=still[1:], duration=[KEEP_SECONDS * 1000, 100])
    assert len(load(file.getvalue()).frames) == 1


def test_uneven_time_stamps():
    """Ten frames a second with a pause of a second, over which the last one stays."""
    times = [0, 100, 200, 300, 1300, 1400, 1500]
    frames = np.repeat(np.arange(40, 240, 30, dtype=np.uint8)[:7], 16 * 16 * 3).reshape(7, 16, 16, 3)
    for kind in (("matroska", "libx264", "yuv420p"), ("mp4", "libx264", "yuv420p"), ("webm", "libvpx", "yuv420p")):
        clip = load(encoded(frames, kind, times=times, rate=1000))
        assert clip.fps == pytest.approx(10, abs=0.01)
        expected = [40, 70, 100, *[130] * 10, 160, 190, 220]
        assert clip.frames[:, 8, 8, 0] == pytest.approx(np.array(expected), abs=6)


def test_shaky_time_stamps_of_a_webcam():
    chance = np.random.default_rng(0)
    times = (np.arange(60) * 1000 / 30 + chance.integers(-6, 7, 60)).round().astype(int) + 6
    clip = load(encoded(scene(60, 16, 16), ("webm", "libvpx", "yuv420p"), times=times.tolist(), rate=1000))
    assert clip.fps == pytest.approx(10, abs=0.5) and 18 <= len(clip.frames) <= 22


def test_large_frames_are_made_smaller_and_small_ones_left():
    assert load(encoded(scene(1, 1920, 1080))).frames.shape == (1, 288, 512, 3)
    assert load(encoded(scene(1, 1080, 1920))).frames.shape == (1, 512, 288, 3)
    assert load(encoded(scene(1, 2000, 100))).frames.shape == (1, 51, 1024, 3)
    assert load(encoded(scene(1, 288, 300))).frames.shape == (1, 300, 288, 3)


def test_pixels_that_are_not_square():
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    clip = load(encoded(scene(2), setup=wide))
    assert clip.frames.shape == (2, 48, 128, 3) and clip.frames[0, 24, 16] == pytest.approx(RED, abs=8)


SEEN = [  # a display matrix, and what it makes of the frame: columns go right, rows go down
    ((1, 0, 0, 1), lambda stored: stored),
    ((0, 1, -1, 0), lambda stored: np.rot90(stored, -1)),  # a phone held upright
    ((-1, 0, 0, -1), lambda stored: np.rot90(stored, 2)),
    ((0, -1, 1, 0), lambda stored: np.rot90(stored)),
    ((-1, 0, 0, 1), lambda stored: stored[:, ::-1]),  # mirrored, as some front cameras write
    ((1, 0, 0, -1), lambda stored: stored[::-1]),
    ((0, 1, 1, 0), lambda stored: stored.transpose(1, 0, 2)),
]


@pytest.mark.parametrize("matrix, upright", SEEN, ids=lambda value: str(value) if isinstance(value, tuple) else "")
def test_orientation(matrix, upright):
    stored = np.zeros((1, 48, 64, 3), np.uint8)
    stored[0, :24, :32], stored[0, :24, 32:], stored[0, 24:, :32] = RED, GREEN, BLUE
    seen = load(turned(encoded(np.repeat(stored, 2, 0)), matrix)).frames
    assert seen[1].shape == upright(stored[0]).shape
    assert np.abs(seen[1].astype(int) - upright(stored[0]))[4::8, 4::8].max() <= 12


def test_untagged_high_definition_is_read_as_players_do():
    """The same YUV values are other colours below and above 720 lines, where a file does not say."""
    clips = [load(encoded(np.full((1, lines, 64, 3), GREEN, np.uint8))) for lines in (700, 720)]
    small, large = (clip.frames[0, 8, 8].astype(int) for clip in clips)
    assert small == pytest.approx(GREEN, abs=4) and np.abs(large - small).max() > 8


# What is refused


def test_empty_text_and_others():
    assert refusal(b"") == "“clip.mp4” is empty (0 bytes)."
    assert refusal(b"hello there") == f"“clip.mp4” is a text file, not a clip; accepted are {ACCEPTED}."
    assert "is a ZIP archive or an office document, not a clip" in refusal(b"PK\x03\x04" + bytes(99))
    assert "is not a clip that can be read here" in refusal(bytes(99))
    assert "is not a clip that can be read here" in refusal(b"RIFF....WAVEfmt " + bytes(99))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_a_photo_called_mp4(format):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), RED).save(file, format)
    assert refusal(file.getvalue(), "photo.mp4").startswith("“photo.mp4” is a photo, not a clip; accepted are")


def test_folder_and_missing_file(tmp_path):
    (tmp_path / "clips").mkdir()
    assert refusal(tmp_path / "clips") == "“clips” is a folder, not a clip."
    assert refusal(tmp_path / "gone.mp4") == "There is no file “gone.mp4”."


def test_sound_only():
    assert refusal(encoded(None, ("mp4", "", ""), sound=True)) == "“clip.mp4” holds no video."
    assert len(load(encoded(scene(3), sound=True)).frames) == 3


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", [KINDS[3], KINDS[5], KINDS[6], KINDS[7]], ids=" ".join)
def test_truncated_clip_is_used_as_far_as_it_goes(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    content = encoded(noise, kind)
    assert 0 < len(load(content[: int(share * len(content))]).frames) < 12


def test_truncated_mp4():
    content = encode_mp4(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8), 12)
    assert 0 < len(load(content[: len(content) // 2]).frames) < 12, "its index comes first"
    content = encoded(scene(12))
    assert refusal(content[: content.index(b"moov")]) == "“clip.mp4” is damaged or incomplete and cannot be decoded."
    for length in (9, 40, 200):
        assert "“clip.mp4”" in refusal(content[:length])


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_damaged_bytes_end_as_a_sentence_or_a_clip(kind):
    content, chance = encoded(scene(6), kind), np.random.default_rng(0)
    for _ in range(6):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[chance.integers(16, len(damaged), 20)] = chance.integers(0, 256, 20)
        try:
            assert load(damaged.tobytes(), "x.mp4").frames.ndim == 4
        except ValueError as error:
            assert "“x.mp4”" in str(error)


def test_frames_too_large():
    limit = "but the limit is 4096 x 4096."
    assert refusal(encoded(np.zeros((1, 16, 4112, 3), np.uint8))) == f"“clip.mp4” has frames of 4112 x 16 pixels, {limit}"
    file = io.BytesIO()
    Image.new("1", (4097, 1)).save(file, "GIF")
    assert refusal(file.getvalue()) == f"“clip.mp4” has frames of 4097 x 1 pixels, {limit}"
    bomb = bytearray(file.getvalue())
    bomb[6:10] = b"\xff\xff\xff\xff"
    assert "has frames larger than the limit of 4096 x 4096 pixels" in refusal(bytes(bomb))


def test_file_too_large(monkeypatch):
    monkeypatch.setattr(video, "MAX_MB", 0.001)
    assert refusal(bytes(1500), "big.mp4") == "“big.mp4” has 0.0 MB, but the limit is 0.001 MB."
    assert MAX_MB == 100


def test_codec_that_is_not_on_the_list():
    sentence = refusal(encoded(scene(2), ("matroska", "ffv1", "yuv420p")), "lossless.mkv")
    assert sentence == "“lossless.mkv” is encoded in a way that cannot be read here; save it as MP4 (H.264) first."


def test_work_is_limited(monkeypatch):
    content = encoded(scene(40, 256, 256))
    monkeypatch.setattr(video, "_MAX_DECODED", 20 * 256 * 256)
    assert 10 <= len(load(content).frames) <= 21
    frames = [Image.new("L", (100, 100), level) for level in range(9)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    monkeypatch.setattr(video, "_MAX_DECODED", 5 * 100 * 100)
    assert len(load(file.getvalue()).frames) == 5


# A clip is one file


@pytest.mark.parametrize("playlist", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{path}'\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{path}</BaseURL></MPD>",
    "{path}",
])  # fmt: skip
def test_playlists_are_text(tmp_path, playlist):
    (tmp_path / "secret.mp4").write_bytes(encoded(scene(2)))
    text = playlist.format(path=tmp_path / "secret.mp4").encode()
    assert "is a text file, not a clip" in refusal(text)
    path = tmp_path / "frame%d.mp4"
    path.write_bytes(text)
    assert "is a text file, not a clip" in refusal(path)


@pytest.mark.parametrize("demuxer", ["hls", "concat"])
def test_no_second_file_even_if_a_playlist_were_taken_for_a_clip(tmp_path, monkeypatch, demuxer):
    (tmp_path / "secret.mp4").write_bytes(encoded(scene(2)))
    playlist = {"hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
                "concat": f"ffconcat version 1.0\nfile 'file:{tmp_path}/secret.mp4'\n"}[demuxer]  # fmt: skip
    monkeypatch.setattr(video, "_container", lambda head: demuxer)
    assert refusal(playlist.encode()).startswith("“clip.mp4” ")


def test_the_folder_is_never_named(tmp_path):
    path = tmp_path / "clip.mp4"
    for content in (b"", b"text", encoded(scene(2))[:300], encoded(None, ("mp4", "", ""), sound=True)):
        path.write_bytes(content)
        assert str(tmp_path) not in refusal(path)


# Progress


def test_reading_reports_and_can_be_cancelled():
    content, heard = encoded(scene(24)), []
    with listening(lambda done, of, doing: heard.append((done, of, doing))):
        assert len(load(content).frames) == 24
    assert heard[:2] == [(0, MAX_FRAMES, "reading the clip"), (1, MAX_FRAMES, "reading the clip")] and len(heard) == 24
    with pytest.raises(Cancelled), listening(lambda done, of, doing: done < 5):
        load(content)


def test_pyav_is_not_loaded_before_a_clip_is():
    code = "import sys, ssl_demo.video; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Frames from pictures, squares, the camera move


def test_frames_of_a_folder(tmp_path):
    for number, size in enumerate([(30, 20), (30, 20), (60, 40)]):
        Image.new("RGB", size, (number * 50, 0, 0)).save(tmp_path / f"{number:05}.png")
    (tmp_path / ".hidden").write_text("not a picture")
    clip = load_frames(tmp_path)
    assert clip.frames.shape == (3, 20, 30, 3) and clip.frames[:, 0, 0, 0].tolist() == [0, 50, 100] and clip.fps == 12
    assert load_frames([tmp_path / "00002.png", tmp_path / "00000.png"], fps=5).frames[:, 0, 0, 0].tolist() == [100, 0]
    assert load_frames([str(tmp_path / "00001.png")] * 200).frames.shape[0] == MAX_FRAMES
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="“notes.txt” is a text file, not a photo"):
        load_frames(tmp_path)


def test_no_frames(tmp_path):
    with pytest.raises(ValueError, match="There are no pictures to make a clip of."):
        load_frames(tmp_path)
    with pytest.raises(ValueError, match="There is no folder “gone”."):
        load_frames(tmp_path / "gone")


def test_squares_take_the_centre():
    frames = np.zeros((2, 20, 60, 3), np.uint8)
    frames[:, :, 20:40] = GREEN
    assert (squares(Clip(frames), 20) == GREEN).all()
    assert (squares(Clip(frames.transpose(0, 2, 1, 3)), 20) == GREEN).all()
    assert squares(Clip(frames), 7).shape == (2, 7, 7, 3)


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (64, 64), (1, 1), (2000, 50)])
def test_camera_move_stays_in_the_photo(size):
    clip = camera_move(Image.new("RGB", size, (90, 120, 200)), frames=8, size=32)
    assert clip.frames.shape == (8, 32, 32, 3) and (clip.frames == (90, 120, 200)).all()


def test_camera_move_is_smooth_a_loop_and_always_the_same():
    photo = Image.fromarray(skimage.data.chelsea())
    clip = camera_move(photo)
    assert clip.frames.shape == (24, 144, 144, 3) and (camera_move(photo).frames == clip.frames).all()
    change = np.abs(np.diff(clip.frames.astype(float), axis=0, append=clip.frames[:1])).mean((1, 2, 3))
    assert change.min() > 2 and change.max() < 2.5 * change.min(), "the step from the last frame to the first is one of them"
    assert np.abs(clip.frames[12].astype(float) - clip.frames[0]).mean() > 10


# What is written


@pytest.mark.parametrize("count, height, width, fps", [(12, 96, 160, 12), (1, 96, 96, 8.33), (5, 144, 432, 9.99)])
def test_round_trip(count, height, width, fps):
    y, x = np.mgrid[:height, :width] / max(height, width)
    smooth = np.stack([200 * x, 200 * y, 60 + 50 * (x + y)], axis=2)
    frames = np.stack([smooth + 5 * t for t in range(count)]).astype(np.uint8)
    clip = load(encode_mp4(frames, fps))
    assert clip.frames.shape == frames.shape and clip.fps == pytest.approx(fps if count > 1 else 12, abs=0.01)
    difference = np.abs(clip.frames.astype(int) - frames)
    assert difference.mean() < 2 and difference.max() <= 12


def test_same_frames_same_bytes_with_the_index_first():
    frames = squares(camera_move(Image.fromarray(skimage.data.coffee()), 12), 96)
    content = encode_mp4(frames, 12)
    assert content == encode_mp4(frames[:, ::1].copy(order="F"), 12)
    assert content.index(b"moov") < content.index(b"mdat") and len(content) < 200_000


def test_long_output():
    assert len(load(encode_mp4(np.zeros((500, 2, 2, 3), np.uint8), 50)).frames) == MAX_FRAMES


@pytest.mark.parametrize("shape", [(2, 15, 16, 3), (2, 16, 15, 3), (0, 16, 16, 3)])
def test_odd_sizes_and_no_frames_are_our_mistake(shape):
    with pytest.raises(AssertionError):
        encode_mp4(np.zeros(shape, np.uint8), 12)


def test_chromium_plays_it(chromium):
    import base64

    url = "data:video/mp4;base64," + base64.b64encode(encode_mp4(scene(24, 432, 144), 12)).decode()
    page = chromium.new_page()
    page.set_content("<video muted></video><canvas width=432 height=144></canvas>")
    state = page.evaluate("""async (url) => {
        const video = document.querySelector('video'), canvas = document.querySelector('canvas');
        const ready = new Promise((done) => { video.oncanplaythrough = video.onerror = done; });
        video.src = url;
        await ready;
        if (video.error) return {error: video.error.message};
        const sought = new Promise((done) => { video.onseeked = done; });
        video.currentTime = 0.01;
        await sought;
        const pen = canvas.getContext('2d');
        pen.drawImage(video, 0, 0);
        const at = (x, y) => [...pen.getImageData(x, y, 1, 1).data].slice(0, 3);
        return {ready: video.readyState, seconds: video.duration, size: [video.videoWidth, video.videoHeight],
                left: at(100, 72), right: at(332, 72)};
    }""", url)  # fmt: skip
    page.close()
    assert "error" not in state, state
    assert state["ready"] == 4 and state["seconds"] == pytest.approx(2, abs=0.02) and state["size"] == [432, 144]
    assert state["left"] == pytest.approx(RED, abs=12) and state["right"] == pytest.approx(BLUE, abs=12)


def test_speed():
    """Generous, for busy machines: a clip's squares and its MP4 are made while a person waits."""
    clip = camera_move(Image.fromarray(skimage.data.rocket()), 24)
    start = time.process_time()
    content = encode_mp4(np.tile(clip.frames, (2, 1, 3, 1)), 12)
    squares(load(content), 96)
    assert time.process_time() - start < 3
