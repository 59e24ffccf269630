"""Guesses that need no learning: what a network has to beat before it can be said to have understood anything."""

import cv2
import numpy as np
import torch
from torch import Tensor


def smooth_interpolation(images: Tensor, hidden: Tensor, sigma: float) -> Tensor:
    """Hidden pixels (B, H, W, bool) filled from visible ones by a normalised Gaussian, (B, 3, H, W): the guess of a blur."""
    side = images.shape[-1]
    place = torch.arange(side, dtype=torch.float64, device=images.device)
    kernel = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))  # doubles reach across any hole here
    seen = (~hidden)[:, None].double()  # (B, 1, H, W)
    weight = kernel @ seen @ kernel
    # Where no visible pixel is in reach, the visible pixels' mean; where nothing at all is visible, grey.
    average = ((images * seen).sum((2, 3), keepdim=True) + 0.5e-9) / (seen.sum((2, 3), keepdim=True) + 1e-9)
    blurred = (kernel @ (images * seen) @ kernel + 1e-290 * average) / (weight + 1e-290)
    return torch.where(hidden[:, None], blurred.float(), images)


def mean_color(images: Tensor, hidden: Tensor) -> Tensor:
    """Hidden pixels (B, H, W, bool) in the visible ones' mean colour, (B, 3, H, W). Where nothing is visible, grey."""
    seen = ~hidden[:, None]
    count = seen.sum((2, 3), keepdim=True)
    color = torch.where(count > 0, (images * seen).sum((2, 3), keepdim=True) / count.clamp(min=1), 0.5)
    return torch.where(seen, images, color)


def telea(images: Tensor, hidden: Tensor, radius: float) -> Tensor:
    """Hidden pixels (B, H, W, bool) filled by OpenCV's `INPAINT_TELEA` (Telea 2004), (B, 3, H, W): from the border inwards, each
    from those within `radius` px that are there already. Where nothing is visible, grey."""
    filled = []
    # OpenCV looks at some hidden pixels where a hole touches the picture's edge, so it gets none: the mean colour stands there.
    for image, mask in zip(mean_color(images, hidden), hidden):
        pixels = image.mul(255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
        filled.append(cv2.inpaint(pixels, mask.byte().cpu().numpy(), radius, cv2.INPAINT_TELEA))
    drawn = torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).to(images) / 255
    return torch.where(hidden[:, None], drawn, images)
