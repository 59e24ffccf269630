"""Photos as people upload them: the only place that decodes, orients, limits and resizes pictures.

``load_photo`` turns any accepted file into the same thing, an upright 8-bit sRGB picture without alpha or metadata, so that
every task sees what the person saw. Whatever is wrong with a file ends as a ``ValueError`` whose text can be shown as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageChops, ImageCms, UnidentifiedImageError

from .progress import Cancelled

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

MAX_MEGAPIXELS = 40
ACCEPTED = ("JPEG", "PNG", "WebP", "AVIF", "GIF", "BMP", "TIFF", "HEIC")

_MAX_PIXELS = MAX_MEGAPIXELS * 1_000_000
# Only these decoders ever run on an upload. HEIF is Pillow's name for HEIC; MPO (most phones' JPEG) is opened by JPEG.
_DECODERS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "HEIF")
_HEAD_BYTES = 4096
DOCUMENTS = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"%!PS", "a PostScript drawing"),
    (b"8BPS", "a Photoshop document"),
)
CONTROL_BYTES = frozenset(range(32)) - frozenset(b"\t\n\f\r") | {127}
_UPRIGHT = {  # EXIF orientation -> what makes the picture upright; 1 already is
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339

# Other libraries register HEIC as a side effect of being imported; whether it works must not depend on them.
pillow_heif.register_heif_opener()

# load_photo checks the size itself. These two lines hold everything else that opens pictures, such as Gradio's own components,
# to the same limit: between once and twice the limit Pillow would only warn.
Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Refused(ValueError):
    """Carries a finished sentence, unlike the ValueErrors of Pillow."""


def load_photo(path: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Image.Image:
    """The picture in a file, upright, as an 8-bit RGB ``PIL.Image`` of at most ``MAX_MEGAPIXELS`` without metadata.

    ``path`` may also be a file open for reading bytes. The content decides the format (``ACCEPTED``), not the file's name. Of
    an animation or a multi-page file the first picture is taken. The EXIF orientation is applied, transparency is blended over
    white, an embedded ICC profile that fits the picture is converted to sRGB. Greys with more than 8 bits are scaled, see
    ``_grey_8_bit``.

    Raises ValueError with one sentence for a person. The file is called by its base name, or that of ``name`` where given
    (what an uploaded file was called at home), never by its folder on this computer.
    """
    return read_upload(path, name, "photo", _decode)


def read_upload(path: str | os.PathLike[str] | BinaryIO, name: str | None, kind: str, decode: Callable[[BinaryIO, str], T]) -> T:
    """``decode(file, what to call it)``, and a ValueError with one sentence for whatever goes wrong with ``path`` on the way."""
    is_open = hasattr(path, "read")
    shown = shown_name(name or ("" if is_open else os.fspath(path)))
    if not is_open and os.path.isdir(path):
        raise ValueError(f"{shown} is a folder, not a {kind}.")
    if not is_open and not os.path.isfile(path):
        raise ValueError(f"There is no file {shown}.")
    try:
        with contextlib.nullcontext(path) if is_open else open(path, "rb") as file:
            return decode(file, shown)
    except (Refused, Cancelled):
        raise
    except PermissionError as error:
        raise ValueError(f"{shown} cannot be opened: reading it is not permitted.") from error
    except Exception as error:  # decoders raise almost anything on damaged data: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{shown} is damaged or incomplete and cannot be decoded.") from error


def limit(image: Image.Image, longest: int = 1024) -> Image.Image:
    """The picture with its longest side at most ``longest`` pixels and the other at least 1; never enlarged."""
    assert longest >= 1
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def square(image: Image.Image, size: int) -> Image.Image:
    """The central square of an RGB picture, resized with Lanczos to ``size`` x ``size``.

    Commutes with quarter turns and flips: ``square(turn(photo)) == turn(square(photo))``. A resize that does not leaves a
    trace of which way up a photo was, and a network that predicts rotation (Gidaris 2018) finds it. Pillow's does not: it
    filters rows before columns and clips in between: up to 36 grey levels apart on noise. So both orders are averaged here.
    """
    assert image.mode == "RGB" and size >= 1

    def rows_first(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2  # half pixels where the difference is odd: centred exactly
        return picture.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))

    columns_first = rows_first(image.transpose(Image.Transpose.TRANSPOSE)).transpose(Image.Transpose.TRANSPOSE)
    return ImageChops.add(rows_first(image), columns_first, scale=2)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as a float32 tensor (3, H, W) in [0, 1]."""
    import torch

    assert image.mode == "RGB"
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


def to_picture(tensor: torch.Tensor) -> np.ndarray:
    """A tensor (3, H, W) in [0, 1] as a uint8 array (H, W, 3): clamped, then rounded. Undoes ``to_tensor`` exactly."""
    assert tensor.ndim == 3 and tensor.shape[0] == 3
    return (tensor.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def shown_name(name: str) -> str:
    """How a message calls a file: base name, printable characters only, shortened, in quotation marks."""
    base = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    base = "".join(character for character in base if character.isprintable()).strip()
    if len(base) > 60:
        base = f"{base[:40]}…{base[-15:]}"
    return f"“{base}”" if base else "The file"


def _decode(file: BinaryIO, shown: str) -> Image.Image:
    head = file.read(_HEAD_BYTES)
    if not head:
        raise Refused(f"{shown} is empty (0 bytes).")
    try:
        image = Image.open(file, formats=_DECODERS)  # reads the header only
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int(re.search(r"\d+", str(error))[0])  # Pillow's message starts "Image size (N pixels)"
        raise Refused(_too_large(shown, pixels)) from None
    except UnidentifiedImageError:
        raise Refused(_not_a_picture(shown, head)) from None
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise Refused(_too_large(shown, width * height))
    image.load()
    orientation = None
    with contextlib.suppress(Exception):  # broken EXIF does not spoil a good picture
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    photo = to_rgb(image)
    if orientation in _UPRIGHT:
        photo = photo.transpose(_UPRIGHT[orientation])
    photo.info.clear()  # or the place it was taken and a wrong profile would be saved into every panel
    return photo


def _too_large(shown: str, pixels: int) -> str:
    return f"{shown} has {pixels:,} pixels, but the limit is {MAX_MEGAPIXELS} megapixels ({_MAX_PIXELS:,} pixels)."


def _not_a_picture(shown: str, head: bytes) -> str:
    """What to say about a file that no accepted decoder recognises, from its first bytes."""
    accepted = f"accepted are {', '.join(ACCEPTED[:-1])} and {ACCEPTED[-1]}"
    for decoder, label in zip(_DECODERS, ACCEPTED):
        looks_like = Image.OPEN[decoder][1]
        if looks_like(head[:16]) is True:
            return f"{shown} begins like a {label} file, but is damaged or of a kind that cannot be read."
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<") and b"<svg" in text and b"<html" not in text:
        return f"{shown} is an SVG drawing, not a photo; export it as PNG or JPEG first."
    for signature, kind in DOCUMENTS:
        if head.startswith(signature):
            return f"{shown} is {kind}, not a photo; {accepted}."
    if CONTROL_BYTES.isdisjoint(head):
        return f"{shown} is a text file, not a photo; {accepted}."
    return f"{shown} is not a picture that can be read here; {accepted}."


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture of any mode as sRGB: more than 8 bits scaled, the ICC profile applied, alpha blended over white."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey_8_bit(image)
    is_grey = image.mode in ("1", "L", "LA")
    alpha = None
    if image.has_transparency_data:  # alpha, or a colour or palette entry declared transparent
        image = image.convert("LA" if is_grey else "RGBA")
        alpha = image.getchannel("A")
    # A profile speaks of grey, of RGB or of CMYK: it is applied before anything is converted between them.
    image = image.convert("L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB")
    photo = _to_srgb(image, profile)
    if alpha is None:
        return photo
    white = Image.new("RGB", photo.size, "white")
    white.paste(photo, mask=alpha)
    return white


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB or CMYK picture as sRGB. A profile that is broken or describes another kind of picture is ignored."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image.convert("RGB")


def _grey_8_bit(image: Image.Image) -> Image.Image:
    """A grey picture of 16 or 32 bits per pixel as mode L; Pillow's ``convert`` would clip it.

    - unsigned 16 bits: divided by 257, so 65535 is white (12-bit TIFF likewise: 4095 is white)
    - other integers and floats: [0, 1] becomes [0, 255] if no value lies outside; otherwise the smallest finite value becomes
      black and the largest white, since nothing in such a file says what white is. NaN is black, infinities are the extremes.
    """
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode.startswith("I;16") or image.format == "PNG":  # Pillow before 11.3 gave 16-bit PNG as mode I
        (bits, *_) = tags.get(_TIFF_BITS, (16,))
        grey = values.astype(np.float32) * (255 / (2**bits - 1))
    else:
        if image.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT, (1,)) == (1,):
            values = values.view(np.uint32)  # mode I is signed, this file is not
        grey = values.astype(np.float64)
        finite = np.isfinite(grey)
        low, high = grey.min(where=finite, initial=np.inf), grey.max(where=finite, initial=-np.inf)
        if low >= 0 and high <= 1:
            low, high = 0, 1
        grey -= low
        grey *= 255 / ((high - low) or 1)
    grey = np.rint(np.clip(np.nan_to_num(grey, copy=False, nan=0, posinf=255, neginf=0), 0, 255)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts only up to 8 bits
        grey = 255 - grey
    return Image.fromarray(grey)
