"""Colour jitter with an order of its own for each image, as torchvision's ColorJitter does image by image."""

import torch
from torch import Generator, Tensor

from ablate.recipe.fields import ColorJitter
from ablate.training.augment.streams import move

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision has them
OFFSETS = (5.0, 3.0, 1.0)  # of red, green and blue on the circle of hues, in sixths
TINY = torch.finfo(torch.float32).tiny


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


def rounds(order: Tensor, factors: Tensor, channels: int) -> tuple[Tensor, Tensor | None, int]:
    """Return operations in each image's order as rounds that all images go through together.

    Each image is blended K - 1 times, its hue is turned, and it is blended K - 1 times again; blends that are
    not its own leave it as it is. Of each blend two matrices an image, see `_mixtures`; of the turns (B, 3)
    what each channel adds to a hue of 0..6, or none; and how many of the blends come before them.
    """
    if channels == 1:
        order, factors = _without_colour(order, factors)
    number, is_hue = order.shape[1], order == HUE
    if number == 0 or not is_hue.any():
        return _mixtures(order, factors, torch.ones_like(is_hue), channels), None, number
    place = torch.arange(number)
    when = is_hue.int().argmax(1, keepdim=True)
    before, after = (
        _mixtures(order[:, part], factors[:, part], own[:, part], channels)
        for own, part in ((place < when, slice(0, -1)), (place > when, slice(1, None)))
    )
    return torch.cat([before, after]), 6 * factors.gather(1, when) + torch.tensor(OFFSETS), number - 1


def _mixtures(order: Tensor, factors: Tensor, own: Tensor, channels: int) -> Tensor:
    """Return (K, 2, B, C, C): by which a pixel, and the mean pixel, are multiplied in each blend.

    f x + (1 - f) (a grey + b mean grey) is linear in both; where the blend is not its own, they are 1 and 0.
    """
    factor = torch.where(own, factors, 1.0)
    grey = torch.tensor(GREY if channels > 1 else (1.0,)).expand(channels, channels)
    to_grey, to_mean = (
        ((order == kind) * (1 - factor))[..., None, None] * grey for kind in (SATURATION, CONTRAST)
    )
    to_grey = to_grey + factor[..., None, None] * torch.eye(channels)
    return torch.stack([to_grey, to_mean]).permute(2, 0, 1, 3, 4).contiguous()


def color_jitter_in_rounds(images: Tensor, blends: Tensor, turn: Tensor | None, before: int) -> Tensor:
    """Apply to each image (B, C, H, W) in [0, 1] what `rounds` has made of its operations.

    As `color_jitter` but for rounding, in an eighth of its steps, of which a GPU waits for each, and with
    several times the work. No step depends on what was drawn.
    """
    x = images.reshape(*images.shape[:2], -1)
    for number, pair in enumerate((*blends, None)):
        if number == before and turn is not None:
            x = _turned(x, turn)
        if pair is not None:
            of_pixel, of_mean = pair
            x = torch.baddbmm(of_mean @ x.mean(2, keepdim=True), of_pixel, x).clamp_(0, 1)
    return x.view(images.shape)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of each image (B, 3, pixels), as `_turn_hue` does, by `turn` (B, 3): see `rounds`."""
    high, largest = x.max(1, keepdim=True)
    chroma = high - x.amin(1, keepdim=True)
    # Of each channel the next one less the one after it, which is all of a hue but the sixth where it lies.
    ahead = x.roll(-1, 1) - x.roll(-2, 1)
    sixth = ahead.gather(1, largest).div_(chroma.clamp_min(TINY)).add_(largest, alpha=2)
    far = (sixth + turn[:, :, None]).remainder_(6).sub_(2).abs_()
    return torch.addcmul(high, chroma, far.neg_().add_(2).clamp_(0, 1), value=-1)


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
    for channel, offset in enumerate(OFFSETS):
        k = hue + offset
        k = torch.where(k >= 6, k - 6, k)
        x[:, channel] = high - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
