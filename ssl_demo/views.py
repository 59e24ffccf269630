"""Random views of photos: crops, mirroring, changes of colour, grey, blur. All chance comes from the generator, and is drawn
whether a change is on or not, so that one seed means one chance and a knob changes nothing but what it says."""

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = (0.299, 0.587, 0.114)
# Rows: lightness, and the two axes of colour that hue turns about (YIQ).
_TO_YIQ = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])


def crop(images: Tensor, rng: torch.Generator, size: int, area: tuple[float, float] = (0.2, 1.0), flip: bool = True,
         strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Random squares of images (B, C, H, H) as (B, C, size, size), and where they are: (B, 4), left, top, width, mirrored.

    A square keeps a share of the area between those in `area`, evenly chosen; with strength 0 it is the whole picture. Left, top
    and width are shares of the picture's side; mirrored is 0 or 1.
    """
    B, H = len(images), images.shape[-1]
    share, left, top, mirror = torch.rand(4, B, 1, generator=rng).to(images.device)
    share = 1 - strength * (1 - (area[0] + share * (area[1] - area[0])))
    width = share.sqrt()
    left, top = left * (1 - width), top * (1 - width)
    mirrored = (mirror < 0.5) & flip & (strength > 0)
    across = (torch.arange(size, device=images.device) + 0.5) / size  # pixel centres
    x = left + width * torch.where(mirrored, across.flip(0), across)  # (B, size)
    y = top + width * across
    grid = torch.empty(B, size, size, 2, device=images.device)
    grid[..., 0], grid[..., 1] = 2 * x[:, None, :] - 1, 2 * y[:, :, None] - 1
    # Bilinear sampling of a picture much larger than the view would alias: whole factors are averaged away first.
    shrink = int(H * (1 - strength * (1 - area[0])) ** 0.5 / size)
    if shrink > 1:
        images = F.avg_pool2d(images, shrink)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return views, torch.cat([left, top, width, mirrored.float()], dim=1)


def change_colors(images: Tensor, rng: torch.Generator, strength: float = 1.0, chance: float = 0.8) -> Tensor:
    """Brightness, contrast, saturation (each times 1 - 0.4 s ... 1 + 0.4 s) and hue (turned by up to 0.1 s of a circle).

    Each photo is changed with a probability of `chance`. All four are linear in the colours: one matrix and a constant a photo.
    """
    B = len(images)
    changed, *amounts = torch.rand(5, B, 1, 1, generator=rng).to(images.device)
    strength = strength * (changed < chance)  # (B, 1, 1)
    brightness, contrast, saturation = (1 + 0.4 * strength * (2 * amount - 1) for amount in amounts[:3])
    turn = 0.1 * 2 * torch.pi * strength * (2 * amounts[3] - 1)
    yiq = _TO_YIQ.to(images.device)
    one, zero = torch.ones_like(turn), torch.zeros_like(turn)
    rows = [[one, zero, zero], [zero, saturation * turn.cos(), -saturation * turn.sin()],
            [zero, saturation * turn.sin(), saturation * turn.cos()]]
    turned = torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)  # (B, 3, 3)
    matrix = torch.linalg.inv(yiq) @ turned @ yiq
    mean = (images.mean(dim=(2, 3)) @ yiq[0])[:, None, None]
    changed = torch.baddbmm(brightness * (1 - contrast) * mean, brightness * contrast * matrix, images.flatten(2))
    return changed.view_as(images).clamp(0, 1)


def drop_colors(images: Tensor, rng: torch.Generator, chance: float = 0.2) -> Tensor:
    """Some photos in grey, each with a probability of `chance`."""
    dropped = (torch.rand(len(images), 1, 1, 1, generator=rng) < chance).to(images.device)
    grey = torch.einsum("bchw,c->bhw", images, torch.tensor(GREY, device=images.device))[:, None]
    return torch.where(dropped, grey, images)


def blur(images: Tensor, rng: torch.Generator, chance: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> Tensor:
    """Some photos blurred by a Gaussian, each with a probability of `chance`; its width, in pixels, is chosen evenly."""
    B, C, H, W = images.shape
    blurred, width = torch.rand(2, B, generator=rng).to(images.device)
    chosen = (blurred < chance).nonzero()[:, 0]
    if not len(chosen):
        return images
    width = sigma[0] + width[chosen, None] * (sigma[1] - sigma[0])
    reach = max(1, min(int(2 * sigma[1]), H - 1, W - 1))
    kernel = (-(torch.arange(-reach, reach + 1, device=images.device) / width).square() / 2).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(C, dim=0)[:, None]  # (chosen * C, 1, taps)
    part = F.pad(images[chosen].reshape(1, -1, H, W), [reach] * 4, mode="reflect")
    part = F.conv2d(part, kernel[:, :, :, None], groups=len(kernel))
    part = F.conv2d(part, kernel[:, :, None, :], groups=len(kernel))
    return images.index_copy(0, chosen, part.view(len(chosen), C, H, W))
