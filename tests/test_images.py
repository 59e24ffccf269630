"""Every kind of file a person may upload, made here byte by byte, and what must come out of it pixel by pixel."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageFile

from ssl_demo.images import ACCEPTED, MAX_MEGAPIXELS, limit, load_photo, square, to_picture, to_tensor

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "HEIF")


@pytest.fixture
def put(tmp_path):
    """put(name, content) writes a file and returns its path; content is bytes or a picture with arguments for its save."""

    def put(name, content, **save):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **save)
        return path

    return put


def encoded(image, format, **save):
    buffer = io.BytesIO()
    image.save(buffer, format, **save)
    return buffer.getvalue()


def grey_levels(path):
    """The grey levels of a photo, which must be grey: an (H, W) list."""
    pixels = np.asarray(load_photo(path))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def refusal(path, name=None):
    """The sentence with which a file is refused."""
    with pytest.raises(ValueError) as caught:
        load_photo(path, name)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def png(width, height, bits, colour_type, rows, chunks=()):
    """A PNG from its parts, for what Pillow does not write; ``rows`` are the raw samples of each row, without filter byte."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    extra = b"".join(chunk(kind, data) for kind, data in chunks)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


def tiff(values, order="<", bits=None, photometric=1, sample_format=1):
    """An uncompressed TIFF of one grey channel from its tags, for what Pillow does not write."""
    data = values if isinstance(values, bytes) else values.tobytes()
    height, width = (1, len(data) * 8 // bits) if isinstance(values, bytes) else values.shape
    bits = bits or values.dtype.itemsize * 8
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags[339] = sample_format
    data += b"\0" * (len(data) % 2)
    directory = struct.pack(order + "H", len(tags)) + b"".join(
        struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory + b"\0\0\0\0"


def icc_profile(space, gamma, red_and_blue_swapped=False):
    """A small ICC version 2 profile, RGB with sRGB's primaries or GRAY, with a pure power curve."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    tags = {b"desc": text, b"wtpt": xyz(0.9642, 1, 0.8249)}
    if space == b"RGB ":
        red, blue = xyz(0.43607, 0.22249, 0.01392), xyz(0.14307, 0.06061, 0.71410)
        tags |= {b"rXYZ": red, b"gXYZ": xyz(0.38515, 0.71687, 0.09708), b"bXYZ": blue}
        if red_and_blue_swapped:
            tags[b"rXYZ"], tags[b"bXYZ"] = blue, red
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags[b"kTRC"] = curve
    body, table = b"", struct.pack(">I", len(tags))
    for tag, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s28s", size, b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ", b"\0" * 12, b"acsp", b"")
    header += xyz(0.9642, 1, 0.8249)[8:]
    return header.ljust(128, b"\0") + table + body


def halves(mode="RGB", first=RED, second=BLUE, size=(32, 16)):
    """A picture of two colours, left and right, in blocks that survive chroma subsampling."""
    image = Image.new(mode, size, first)
    image.paste(second, (size[0] // 2, 0, *size))
    return image


# Formats


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("suffix", ["right", "wrong", "none"])
def test_content_decides_the_format(put, format, suffix):
    wrong = "png" if format == "JPEG" else "jpg"
    name = {"right": f"photo.{format.lower()}", "wrong": f"photo.{wrong}", "none": "photo"}[suffix]
    photo = load_photo(put(name, encoded(halves(), format)))
    assert type(photo) is Image.Image and photo.mode == "RGB" and photo.size == (32, 16)
    tolerance = 0 if format in ("PNG", "GIF", "BMP", "TIFF") else 6
    assert photo.getpixel((4, 8)) == pytest.approx(RED, abs=tolerance)
    assert photo.getpixel((28, 8)) == pytest.approx(BLUE, abs=tolerance)


def test_a_path_may_be_text_or_a_path_object(put):
    path = put("photo.png", halves())
    assert load_photo(str(path)).tobytes() == load_photo(Path(path)).tobytes() == halves().tobytes()


def test_jpeg_with_a_second_picture_as_phones_write_it(put):
    path = put("phone.jpg", encoded(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 16), GREEN)]))
    assert Image.open(path).format == "MPO"
    assert load_photo(path).getpixel((2, 2)) == pytest.approx(RED, abs=2)


@pytest.mark.parametrize("brand", ["msf1", "mif1"])
def test_heic_with_a_general_brand(put, brand):
    content = bytearray(encoded(halves(), "HEIF"))
    content[8:12] = brand.encode()
    assert load_photo(put("photo.heic", bytes(content))).getpixel((2, 2)) == pytest.approx(RED, abs=6)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame(put, format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    path = put("animation", encoded(frames[0], format, save_all=True, append_images=frames[1:]))
    assert Image.open(path).n_frames == 3
    photo = load_photo(path)
    assert photo.size == (16, 16) and photo.getpixel((8, 8)) == pytest.approx(RED, abs=3)


# Orientation

UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
STORED = {  # EXIF: where row 0 and column 0 of what is stored are seen
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(put, orientation, format):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    options = {"lossless": True} if format == "WEBP" else {}
    photo = load_photo(put("photo", encoded(stored, format, exif=exif, **options)))
    assert np.asarray(photo)[..., 0].tolist() == UPRIGHT.tolist()


@pytest.mark.parametrize("format", ["JPEG", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_of_lossy_formats(put, orientation, format):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    stored = stored.resize((stored.width * 16, stored.height * 16), Image.Resampling.NEAREST)
    photo = load_photo(put("photo", encoded(stored, format, exif=exif.tobytes())))
    assert photo.size == (48, 32)
    assert np.asarray(photo)[8::16, 8::16, 0] == pytest.approx(UPRIGHT, abs=4)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_exif_orientation_of_deep_tiff(put, orientation, dtype):
    values = np.ascontiguousarray(STORED[orientation]).astype(dtype) * dtype(257 if dtype is np.uint16 else 1 / 255)
    assert grey_levels(put("scan.tif", Image.fromarray(values), tiffinfo={274: orientation})) == UPRIGHT.tolist()


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"])
@pytest.mark.filterwarnings("ignore")
def test_broken_exif_does_not_spoil_the_picture(put, exif):
    assert load_photo(put("photo.jpg", encoded(halves(), "JPEG", exif=exif))).getpixel((2, 2)) == pytest.approx(RED, abs=2)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist_change_nothing(put, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    assert load_photo(put("photo.png", halves(), exif=exif)).tobytes() == halves().tobytes()


def test_metadata_is_left_behind(put):
    exif = Image.Exif()
    exif[271] = "camera"
    photo = load_photo(
        put("photo.jpg", encoded(halves(), "JPEG", exif=exif, icc_profile=icc_profile(b"RGB ", 2.2), comment="me"))
    )
    assert photo.info == {} and not photo.getexif()


# Transparency

HALF_RED = (255, 127, 127)  # red of alpha 128 over white


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_blended_over_white(put, format):
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 128), (255, 0, 0, 0)])
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    pixels = np.asarray(load_photo(put("photo", encoded(image, format, **options))))
    assert pixels.tolist() == [[list(RED), list(HALF_RED), list(WHITE)]]


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_alpha_of_lossy_formats(put, format):
    path = put("photo", encoded(halves("RGBA", (0, 0, 0, 255), (0, 0, 0, 0)), format))
    assert np.asarray(load_photo(path))[8, [4, 28], 0] == pytest.approx([0, 255], abs=3)


def test_grey_with_alpha(put):
    image = Image.new("LA", (3, 1))
    image.putdata([(0, 255), (0, 128), (0, 0)])
    assert grey_levels(put("photo.png", image)) == [[0, 127, 255]]
    assert grey_levels(put("photo.tif", image)) == [[0, 127, 255]]


def test_16_bit_grey_with_alpha(put):
    samples = np.array([[[257 * 100, 65535], [0, 32896], [0, 0]]], ">u2")
    assert grey_levels(put("photo.png", png(3, 1, 16, 4, [samples.tobytes()]))) == [[100, 127, 255]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])], ids=["one entry", "alpha per entry"])
def test_palette_with_transparency(put, transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    pixels = np.asarray(load_photo(put("photo.png", image, transparency=transparency)))[0].tolist()
    assert pixels == [list(RED), list(WHITE), list(BLUE) if transparency == 1 else [127, 127, 255]]


def test_gif_with_transparency(put):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert np.asarray(load_photo(put("photo.gif", image, transparency=1))).tolist() == [[list(RED), list(WHITE)]]


@pytest.mark.parametrize("mode, key", [("L", 7), ("RGB", (7, 7, 7))])
def test_png_with_one_colour_declared_transparent(put, mode, key):
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), key)
    assert grey_levels(put("photo.png", image, transparency=key)) == [[0, 255]]


# Modes and depths


def test_palette_grey_and_one_bit(put):
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 200, 100, 50])
    palette.putdata([0, 1])
    for name in ("p.png", "p.gif", "p.bmp", "p.tif"):
        assert np.asarray(load_photo(put(name, palette))).tolist() == [[[1, 2, 3], [200, 100, 50]]]
    one_bit = Image.new("1", (2, 1))
    one_bit.putpixel((1, 0), 1)
    for name in ("1.png", "1.bmp", "1.tif"):
        assert grey_levels(put(name, one_bit)) == [[0, 255]]
    for name in ("l.png", "l.bmp", "l.tif"):
        assert grey_levels(put(name, Image.fromarray(np.array([[0, 100, 255]], np.uint8)))) == [[0, 100, 255]]


@pytest.mark.parametrize("bits, levels", [(1, [0, 255]), (2, [0, 85, 170, 255]), (4, list(range(0, 256, 17)))])
def test_png_greys_below_8_bits(put, bits, levels):
    row = int("".join(f"{value:0{bits}b}" for value in range(2**bits)).ljust(8, "0"), 2)
    row = row.to_bytes(max(1, 2**bits * bits // 8), "big")
    assert grey_levels(put("photo.png", png(2**bits, 1, bits, 0, [row]))) == [levels]


DEEP, DEEP_LEVELS = [0, 128, 129, 257, 25700, 32767, 32768, 65406, 65407, 65535], [0, 0, 1, 1, 100, 127, 128, 254, 255, 255]


@pytest.mark.parametrize("kind", ["png", "tiff I;16", "tiff I;16B", "tiff white is zero"])
def test_16_bit_grey_is_divided_by_257(put, kind):
    values = np.array([DEEP])
    content = {
        "png": png(len(DEEP), 1, 16, 0, [values.astype(">u2").tobytes()]),
        "tiff I;16": tiff(values.astype("<u2")),
        "tiff I;16B": tiff(values.astype(">u2"), ">"),
        "tiff white is zero": tiff((65535 - values).astype("<u2"), photometric=0),
    }[kind]
    assert grey_levels(put("scan", content)) == [DEEP_LEVELS]


@pytest.mark.parametrize("mode", ["I;16L", "I;16B", "I;16N", "I"])
def test_16_bit_grey_as_other_versions_of_pillow_give_it(put, mode, monkeypatch):
    path = put("scan.png", png(len(DEEP), 1, 16, 0, [np.array(DEEP, ">u2").tobytes()]))
    dtype = {"I": "i4", "I;16B": ">u2"}.get(mode, "<u2")

    def open_as_mode(*arguments, **options):
        image = Image.frombytes(mode, (len(DEEP), 1), np.array(DEEP, dtype).tobytes())
        image.format = "PNG"
        return image

    monkeypatch.setattr(Image, "open", open_as_mode)
    assert grey_levels(path) == [DEEP_LEVELS]


def test_12_bit_tiff(put):
    samples = [0, 1606, 4095, 4095]
    packed = int("".join(f"{value:012b}" for value in samples), 2).to_bytes(6, "big")
    assert grey_levels(put("scan.tif", tiff(packed, bits=12))) == [[0, 100, 255, 255]]


def test_16_bit_heic(put):
    values = np.repeat(np.array([[0, 32768, 65535]], np.uint16), 16, 1).repeat(16, 0)
    pillow_heif.options.SAVE_HDR_TO_12_BIT = True
    try:
        path = put("photo.heic", encoded(Image.fromarray(values), "HEIF", quality=-1))
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    assert np.asarray(load_photo(path))[8, 8::16, 0] == pytest.approx([0, 128, 255], abs=1)


@pytest.mark.parametrize("colour_type", [2, 6], ids=["RGB", "RGBA"])
def test_16_bit_colour_png_is_scaled_not_clipped(put, colour_type):
    colours = np.array([[0, 25700, 65535], [300, 32896, 51400]])
    samples = colours if colour_type == 2 else np.hstack([colours, [[65535], [65535]]])
    pixels = np.asarray(load_photo(put("photo.png", png(2, 1, 16, colour_type, [samples.astype(">u2").tobytes()]))))
    assert np.abs(pixels[0] - colours / 257).max() < 1


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "values, levels",
    [
        ([0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        ([0.25, 0.5, 0.5, 0.5], [64, 128, 128, 128]),
        ([0, 51, 102, 255], [0, 51, 102, 255]),
        ([-1, 0, 0.5, 1], [0, 128, 191, 255]),
        ([1000, 1001, 1002, 1004], [0, 64, 128, 255]),
        ([NAN, 0.2, INF, -INF], [0, 51, 255, 0]),
        ([NAN, 10, 20, INF], [0, 0, 255, 255]),
        ([NAN, NAN, INF, -INF], [0, 0, 255, 0]),
        ([7, 7, 7, 7], [0, 0, 0, 0]),
        ([-3e38, 0, 0, 3e38], [0, 128, 128, 255]),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.filterwarnings("error")
def test_float_tiff(put, values, levels, order):
    path = put("scan.tif", tiff(np.array([values], order + "f4"), order, sample_format=3))
    assert grey_levels(path) == [levels]


@pytest.mark.parametrize(
    "values, levels, dtype",
    [
        ([0, 51, 102, 255], [0, 51, 102, 255], "i4"),
        ([0, 1, 1, 0], [0, 255, 255, 0], "i4"),
        ([-(2**31), 0, 0, 2**31 - 1], [0, 128, 128, 255], "i4"),
        ([10**9, 10**9 + 51, 10**9 + 102, 10**9 + 255], [0, 51, 102, 255], "i4"),
        ([0, 2**31, 2**31, 2**32 - 1], [0, 128, 128, 255], "u4"),
        ([-255, 0, 0, 255], [0, 128, 128, 255], "i2"),
    ],
)
def test_integer_tiff(put, values, levels, dtype):
    path = put("scan.tif", tiff(np.array([values], "<" + dtype), sample_format=1 if dtype == "u4" else 2))
    assert grey_levels(path) == [levels]


def test_cmyk(put):
    ink = halves("CMYK", (0, 255, 255, 0), (0, 0, 0, 128), (16, 8))
    for name, tolerance in (("print.tif", 1), ("print.jpg", 4)):
        pixels = np.asarray(load_photo(put(name, ink, **({"quality": 100} if name.endswith("jpg") else {}))))
        assert pixels[4, 2] == pytest.approx(RED, abs=tolerance) and pixels[4, 13] == pytest.approx((127,) * 3, abs=tolerance)


def test_cmyk_jpeg_has_inverted_inks_with_or_without_adobes_mark(put):
    """Adobe writes 255 for no ink and so does nearly everyone; Pillow reads every CMYK JPEG that way."""
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    mark = content.index(b"\xff\xee")
    length = struct.unpack(">H", content[mark + 2 : mark + 4])[0]
    assert b"Adobe" in content[mark : mark + length]
    assert load_photo(put("marked.jpg", content)).getpixel((8, 8)) == pytest.approx(RED, abs=3)
    unmarked = content[:mark] + content[mark + 2 + length :]
    assert load_photo(put("unmarked.jpg", unmarked)).getpixel((8, 8)) == pytest.approx(RED, abs=3)


def test_ycbcr_tiff(put):
    strip = encoded(Image.new("RGB", (16, 16), (200, 100, 50)), "JPEG", quality=100, subsampling=0)
    tags = {256: 16, 257: 16, 258: 8, 259: 7, 262: 6, 273: 8, 277: 3, 278: 16, 279: len(strip), 530: 0x10001}
    directory = b"".join(
        struct.pack("<HHII", tag, 3, 2, value) if tag == 530 else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
    strip += b"\0" * (len(strip) % 2)
    directory = struct.pack("<H", len(tags)) + directory + b"\0\0\0\0"
    path = put("photo.tif", b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory)
    assert load_photo(path).getpixel((8, 8)) == pytest.approx((200, 100, 50), abs=4)


def test_lab_tiff(put):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 4), (200, 100, 50)), srgb, lab, outputMode="LAB")
    path = put("photo.tif", image)
    assert Image.open(path).mode == "LAB"
    assert load_photo(path).getpixel((2, 2)) == pytest.approx((200, 100, 50), abs=3)


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "PA", "RGBX"])
def test_modes_that_no_accepted_file_has_today(put, mode, monkeypatch):
    image = Image.new("RGB", (2, 2), (200, 100, 50)).convert("P").convert("PA") if mode == "PA" else None
    image = image or Image.new("RGB", (2, 2), (200, 100, 50)).convert(mode)
    expected = image.convert("RGB").getpixel((0, 0))
    path = put("photo.png", halves())
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: image)
    assert load_photo(path).getpixel((0, 0)) == expected == pytest.approx((200, 100, 50), abs=5 if mode != "PA" else 60)


# Colour profiles


def encode_srgb(linear):
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_profile_is_converted_to_srgb(put, format):
    content = encoded(halves(), format, icc_profile=icc_profile(b"RGB ", 2.2, red_and_blue_swapped=True))
    photo = load_photo(put("photo", content))
    assert photo.getpixel((2, 2)) == pytest.approx(BLUE, abs=2) and photo.getpixel((30, 2)) == pytest.approx(RED, abs=2)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "HEIF"])
def test_profile_of_lossy_formats(put, format):
    image = Image.new("RGB", (16, 16), (128, 128, 128))
    photo = load_photo(put("photo", encoded(image, format, icc_profile=icc_profile(b"RGB ", 1.0))))
    assert photo.getpixel((8, 8)) == pytest.approx([encode_srgb(128 / 255)] * 3, abs=3)


def test_profile_of_a_palette_and_below_alpha(put):
    profile = icc_profile(b"RGB ", 2.2, red_and_blue_swapped=True)
    palette = Image.new("P", (2, 2))
    palette.putpalette([*RED])
    assert load_photo(put("p.png", palette, icc_profile=profile)).getpixel((0, 0)) == pytest.approx(BLUE, abs=2)
    layer = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert load_photo(put("a.png", layer, icc_profile=profile)).getpixel((0, 0)) == pytest.approx((127, 127, 255), abs=2)


@pytest.mark.parametrize("mode, value", [("L", 128), ("LA", (128, 255)), ("I;16", 128 * 257)])
def test_grey_profile(put, mode, value):
    path = put("photo.png", Image.new(mode, (2, 1), value), icc_profile=icc_profile(b"GRAY", 1.0))
    assert grey_levels(path)[0] == pytest.approx([encode_srgb(128 / 255)] * 2, abs=1)


@pytest.mark.parametrize("profile", [b"garbage", icc_profile(b"RGB ", 1.0)[:150], icc_profile(b"GRAY", 1.0), bytes(500)])
def test_broken_or_unfitting_profile_is_ignored(put, profile):
    assert load_photo(put("photo.png", halves(), icc_profile=profile)).tobytes() == halves().tobytes()


def test_rgb_profile_on_cmyk_and_grey_is_ignored(put):
    profile = icc_profile(b"RGB ", 1.0)
    assert load_photo(put("p.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0)), icc_profile=profile)).getpixel((0, 0)) == RED
    assert grey_levels(put("g.png", Image.new("L", (1, 1), 128), icc_profile=profile)) == [[128]]


# Sizes


@pytest.mark.parametrize("format", FORMATS)
def test_one_pixel(put, format):
    photo = load_photo(put("dot", encoded(Image.new("RGB", (1, 1), (200, 100, 50)), format)))
    assert photo.size == (1, 1) and photo.getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=9)


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_extreme_aspect_ratio(put, size):
    photo = load_photo(put("line.png", Image.new("RGB", size, RED)))
    assert photo.size == size and photo.getpixel((0, 0)) == RED
    assert max(limit(photo).size) == 1024 and min(limit(photo).size) == 1
    assert square(photo, 32).getcolors() == [(32 * 32, RED)]


def test_40_megapixels_are_accepted(put):
    photo = load_photo(put("large.png", Image.new("1", (8000, 5000), 1)))
    assert photo.size == (8000, 5000) and photo.size[0] * photo.size[1] == MAX_MEGAPIXELS * 1_000_000
    assert photo.getpixel((7999, 4999)) == WHITE


@pytest.fixture
def nothing_may_be_decoded(monkeypatch):
    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.parametrize("filter", ["default", "error"])
@pytest.mark.parametrize("size", [(8001, 5000), (8000, 8000), (20000, 10000), (100000, 100000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.usefixtures("nothing_may_be_decoded")
def test_larger_is_refused_by_its_header(put, size, filter):
    path = put("bomb.png", png(*size, 1, 0, [b""]))
    with warnings.catch_warnings():
        warnings.simplefilter(filter, Image.DecompressionBombWarning)
        with warnings.catch_warnings(record=True):
            sentence = refusal(path)
    pixels = size[0] * size[1]
    assert sentence == f"“bomb.png” has {pixels:,} pixels, but the limit is 40 megapixels (40,000,000 pixels)."


@pytest.mark.parametrize("pillow_limit", [None, 10**9, 1000])
@pytest.mark.usefixtures("nothing_may_be_decoded")
def test_limit_does_not_depend_on_pillows(put, monkeypatch, pillow_limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    assert "100,000,000 pixels" in refusal(put("bomb.png", png(10000, 10000, 1, 0, [b""])))


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "WEBP", "JPEG"])
@pytest.mark.usefixtures("nothing_may_be_decoded")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_forged_headers_of_other_formats(put, format):
    content = bytearray(encoded(Image.new("RGB", (16, 16)), format, **({"lossless": True} if format == "WEBP" else {})))
    if format == "GIF":
        content[6:10] = struct.pack("<HH", 60000, 60000)
    elif format == "BMP":
        content[18:26] = struct.pack("<ii", 60000, 60000)
    elif format == "TIFF":
        content = bytearray(tiff(np.zeros((1, 1), "<u2")))
        for tag in (256, 257):
            at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
            content[at : at + 4] = struct.pack("<I", 60000)
    elif format == "WEBP":
        content = bytearray(encoded(Image.new("1", (16383, 2442)), "WEBP", lossless=True, method=0))
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 60000, 60000)
    pixels = 16383 * 2442 if format == "WEBP" else 3_600_000_000
    assert f"{pixels:,} pixels" in refusal(put("bomb", bytes(content)))


def test_other_openers_are_held_to_the_limit_too(put):
    path = put("bomb.png", png(8001, 5000, 1, 0, [b""]))
    # In a process of its own: pytest takes back the filters that were set while it collected the tests.
    code = f"import ssl_demo.images; from PIL import Image; print(Image.MAX_IMAGE_PIXELS, flush=True); Image.open({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "40000000\n" and done.returncode == 1 and "DecompressionBombWarning" in done.stderr


# Bad files

DETAILED = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("format", FORMATS)
def test_truncated(put, format, share):
    content = encoded(DETAILED, format)
    path = put("cut.jpg", content[: int(len(content) * share)])
    assert "damaged" in refusal(path) and "“cut.jpg”" in refusal(path)


@pytest.mark.parametrize("format", FORMATS)
def test_any_damage_is_a_sentence_or_a_picture(put, format):
    """Random bytes overwritten anywhere: an RGB picture or a ValueError, and nothing else ever."""
    content = encoded(DETAILED.resize((24, 24)), format)
    random = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(25):
            damaged = bytearray(content)
            for at in random.integers(0, len(damaged), 6):
                damaged[at] = random.integers(256)
            try:
                assert load_photo(put("hit.jpg", bytes(damaged))).mode == "RGB"
            except ValueError as error:
                assert "“hit.jpg”" in str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FORMATS)
def test_nothing_but_a_signature(put, format):
    assert "damaged" in refusal(put("stub", encoded(DETAILED, format)[:16]))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_png_without_pixels(put, size):
    assert "begins like a PNG file" in refusal(put("none.png", png(*size, 8, 0, [b""])))


def test_empty(put):
    assert refusal(put("empty.jpg", b"")) == "“empty.jpg” is empty (0 bytes)."


@pytest.mark.parametrize(
    "content", [b"hello", "Grüße\n".encode(), "Grüße\n".encode("latin-1"), b"a,b\r\n1,2\n", b"<html><svg/></html>", b"on <svg>"]
)
def test_text(put, content):
    assert refusal(put("notes.jpg", content)).startswith("“notes.jpg” is a text file, not a photo; accepted are JPEG, PNG,")


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made by hand -->\n<!DOCTYPE svg>\n<SVG width="9"></SVG>',
    ],
)
@pytest.mark.parametrize("name", ["logo.svg", "logo.png"])
def test_svg(put, content, name):
    assert refusal(put(name, content)) == f"“{name}” is an SVG drawing, not a photo; export it as PNG or JPEG first."


@pytest.mark.parametrize(
    "content, kind",
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"PK\x03\x04\x14\0\0\0", "a ZIP archive or an office document"),
        (b"\x1f\x8b\x08\0", "a compressed archive"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript drawing"),
        (b"8BPS\0\x01", "a Photoshop document"),
    ],
)
def test_other_documents_called_jpg(put, content, kind):
    sentence = refusal(put("thing.jpg", content))
    assert sentence == f"“thing.jpg” is {kind}, not a photo; accepted are JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and HEIC."


@pytest.mark.parametrize("format", ["ICO", "TGA", "PPM", "JPEG2000", "PCX", "SGI", "DDS", "ICNS", "EPS"])
def test_formats_that_pillow_could_open_are_refused(put, format):
    path = put(f"picture.{format.lower()}", encoded(Image.new("RGB", (32, 32), RED), format))
    sentence = refusal(path)
    assert path.name in sentence and all(label in sentence for label in ACCEPTED)


def test_random_bytes(put):
    assert "not a picture that can be read here; accepted are" in refusal(put("noise.jpg", b"\0\1\2\3" * 99))


def test_folder_and_missing_file(tmp_path):
    (tmp_path / "photos").mkdir()
    assert refusal(tmp_path / "photos") == "“photos” is a folder, not a photo."
    assert refusal(f"{tmp_path}/photos/") == "“photos” is a folder, not a photo."
    assert refusal(tmp_path / "gone.jpg") == "There is no file “gone.jpg”."
    assert refusal("a\0b.jpg") == "There is no file “ab.jpg”."
    assert refusal(f"{tmp_path}/{'x' * 300}.jpg").startswith("There is no file “xxx")


def test_file_that_may_not_be_read(put, monkeypatch):
    path = put("private.png", halves())

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    assert refusal(path) == "“private.png” cannot be opened: reading it is not permitted."


# Names


@pytest.mark.parametrize(
    "content", [b"", b"text", b"<svg/>", b"%PDF-", b"\0\1\2", png(9999, 9999, 1, 0, [b""]), encoded(DETAILED, "JPEG")[:900], None]
)
def test_the_folder_is_never_named(put, tmp_path, content):
    path = tmp_path / "cat.jpg" if content is None else put("cat.jpg", content)
    for name in (None, "cat.jpg", "/home/zoe/cat.jpg", "C:\\Users\\zoe\\cat.jpg", "../../cat.jpg"):
        sentence = refusal(path, name)
        assert "“cat.jpg”" in sentence
        assert str(tmp_path) not in sentence and "/" not in sentence and "\\" not in sentence and "zoe" not in sentence


def test_names_are_cleaned_and_shortened(put):
    path = put("x.jpg", b"")
    assert refusal(path, "my\ncat\x1b[31m\u202egnp.jpg") == "“mycat[31mgnp.jpg” is empty (0 bytes)."
    assert refusal(path, "Häuser 家 🐈.jpg") == "“Häuser 家 🐈.jpg” is empty (0 bytes)."
    assert refusal(path, "bad\udcff.jpg").encode() == "“bad.jpg” is empty (0 bytes).".encode()
    assert refusal(path, "\n\t") == "The file is empty (0 bytes)."
    assert refusal(path, "a" * 500 + ".jpg") == f"“{'a' * 40}…{'a' * 11}.jpg” is empty (0 bytes)."


# limit, square, tensors


@pytest.mark.parametrize(
    "size, longest, expected",
    [((100, 50), 1024, (100, 50)), ((2048, 1024), 1024, (1024, 512)), ((30, 3000), 100, (1, 100)), ((3, 3000), 10, (1, 10))],
)
def test_limit(size, longest, expected):
    image = limit(Image.new("RGB", size, (10, 20, 30)), longest)
    assert image.size == expected and image.getcolors() == [(expected[0] * expected[1], (10, 20, 30))]


def test_limit_averages_rather_than_picks():
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (64, 512))).convert("RGB")
    assert np.asarray(limit(stripes, 128))[4, 10:-10] == pytest.approx(127.5, abs=4)


def picture(kind, size):
    random = np.random.default_rng(7)
    if kind == "noise":
        return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    if kind == "black and white":
        return Image.fromarray(random.random((size[1], size[0])) > 0.5).convert("RGB")
    return Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("turn", Image.Transpose, ids=lambda turn: turn.name)
@pytest.mark.parametrize("kind", ["noise", "black and white", "smooth"])
@pytest.mark.parametrize("size", [(97, 64), (64, 97), (120, 80), (33, 33), (225, 224), (7, 50)])
def test_square_commutes_with_turns_and_flips(size, kind, turn):
    image = picture(kind, size)
    for side in (32, 33, 64):
        turned_after = np.asarray(square(image, side).transpose(turn)).astype(int)
        turned_before = np.asarray(square(image.transpose(turn), side)).astype(int)
        assert np.abs(turned_after - turned_before).max() <= 1


def test_square_takes_the_centre():
    image = Image.new("RGB", (60, 20), RED)
    image.paste(GREEN, (20, 0, 40, 20))
    assert square(image, 20).getcolors() == [(400, GREEN)]
    assert square(image.transpose(Image.Transpose.ROTATE_90), 20).getcolors() == [(400, GREEN)]


def test_square_of_the_right_size_changes_nothing():
    image = picture("noise", (48, 48))
    assert square(image, 48).tobytes() == image.tobytes()


def test_square_is_antialiased():
    board = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert np.asarray(square(board, 32))[4:-4, 4:-4] == pytest.approx(127.5, abs=3)


def test_tensor_and_back():
    image = Image.fromarray(np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8))
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 16) and str(tensor.dtype) == "torch.float32" and tensor.is_contiguous()
    assert tensor[:, 2, 5].tolist() == pytest.approx([value / 255 for value in image.getpixel((5, 2))])
    assert to_picture(tensor).dtype == np.uint8 and to_picture(tensor).tolist() == np.asarray(image).tolist()


def test_picture_is_clamped_and_rounded():
    import torch

    tensor = torch.tensor([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 254.6 / 255, 2.0], requires_grad=True).expand(3, 1, 6)
    assert to_picture(tensor)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
