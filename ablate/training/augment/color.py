"""Colour jitter with an order of its own for each image, as torchvision's ColorJitter does image by image."""

import torch
from torch import Generator, Tensor

from ablate.recipe.fields import ColorJitter
from ablate.training.augment.streams import move

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision has them


def sample_color_jitter(batch: int, jitter: ColorJitter, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw (B, K) operations, in each image's order, and their (B, K) factors, for the K that are not 0.

    Brightness, contrast and saturation: uniform in [1 - x, 1 + x]; hue: in [-x, x], of the whole circle. All
    four and a full order are drawn whatever is on, so that switching one on moves none of the others.
    """
    reach = torch.tensor([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    order = torch.rand(batch, 4, generator=generator).argsort(1)
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]) + reach * (2 * torch.rand(batch, 4, generator=generator) - 1)
    on = (reach > 0)[order]
    return order[on].view(batch, -1), factors.gather(1, order)[on].view(batch, -1)


def color_jitter(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Apply to each image (B, C, H, W) in [0, 1] its operations one after another; C is 1 or 3.

    `order` and `factors` (B, K) stay on the CPU: they decide how images are grouped. Brightness, contrast and
    saturation are one formula, f x + (1 - f) (a grey + b mean grey) with (a, b) = (0, 0), (0, 1), (1, 0), so
    all images go through it together; hue is another, so they are sorted by when theirs comes, and each group
    is one slice.
    """
    if images.shape[1] == 1:
        order, factors = _without_colour(order, factors)
    if order.shape[1] == 0:  # every reach is 0, or hue alone of grey images
        return images.clone()
    sorting, ends = _sort_by_hue(order)
    order, factors = order[sorting], factors[sorting].to(images.dtype)
    is_kind = (order == SATURATION, order == CONTRAST)
    place, back, factor, grey_share, mean_share = move(
        images.device, sorting, sorting.argsort(), factors, *(kind.to(images.dtype) for kind in is_kind)
    )
    x = images.contiguous()[place]
    for step in range(order.shape[1]):
        start, end = ([0, *ends])[step : step + 2]
        for part in (slice(0, start), slice(end, len(x))):
            _blend(x[part], factor[part, step], grey_share[part, step], mean_share[part, step])
        _turn_hue(x[start:end], factor[start:end, step])
    return x.index_select(0, back)  # out[place] = x: on a GPU, in deterministic mode, that is a sort


def _without_colour(order: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out what grey images have not: a hue; their saturation is as it is."""
    factors, keep = torch.where(order == SATURATION, 1.0, factors), order != HUE
    return order[keep].view(len(order), -1), factors[keep].view(len(order), -1)


def _sort_by_hue(order: Tensor) -> tuple[Tensor, list[int]]:
    """Return the permutation that sorts images by the step of their hue, and where each step's images end."""
    is_hue = order == HUE
    when = torch.where(is_hue.any(1), is_hue.int().argmax(1), order.shape[1]).to(torch.int16)
    sorting = when.argsort(stable=True)
    return sorting, torch.searchsorted(
        when[sorting], torch.arange(order.shape[1], dtype=torch.int16), right=True
    ).tolist()


def _blend(x: Tensor, factor: Tensor, grey_share: Tensor, mean_share: Tensor) -> None:
    """Scale the distance from a reference: black, the mean grey, or the grey image. In place."""
    if not len(x):
        return
    grey = _grey(x)
    rest = 1 - factor
    reference = (
        grey * (grey_share * rest)[:, None, None] + (grey.mean((1, 2)) * mean_share * rest)[:, None, None]
    )
    x.mul_(factor[:, None, None, None]).add_(reference[:, None]).clamp_(0, 1)


def _grey(x: Tensor) -> Tensor:
    """Return (B, H, W): the brightness that an eye sees."""
    if x.shape[1] == 1:
        return x[:, 0]
    return (x[:, 0] * GREY[0]).add_(x[:, 1], alpha=GREY[1]).add_(x[:, 2], alpha=GREY[2])


def _turn_hue(x: Tensor, turn: Tensor) -> None:
    """Turn the hue of each image by a share of the circle, through HSV (Foley et al. 1990, section 13.3.4).

    In place.

    Remainders are written as v - floor(v): fmod and remainder are not vectorised on CPUs.

    """
    if not len(x):
        return
    red, green, blue = x.unbind(1)
    high, low = x.amax(1), x.amin(1)
    chroma = high - low
    divisor = chroma.masked_fill(chroma == 0, 1)
    r, g, b = ((high - part).div_(divisor) for part in (red, green, blue))
    sixth = torch.where(high == red, b - g, torch.where(high == green, (r - b).add_(2), (g - r).add_(4)))
    hue = sixth.mul_(1 / 6).add_(turn[:, None, None])
    hue = hue.sub_(hue.floor()).mul_(6)
    for channel, offset in enumerate((5.0, 3.0, 1.0)):
        k = hue + offset
        k = torch.where(k >= 6, k - 6, k)
        x[:, channel] = high - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
