"""Augmentations of whole batches agree with torchvision's of single images, and draw from streams of their own.

Two samples are alike, and a share is what it should be, when a test at the level of LEVEL does not tell them apart. All
seeds are fixed, so that these tests give the same answer each time.
"""

import itertools

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from ablate.recipe import identity
from ablate.recipe.fields import Augment, ColorJitter
from ablate.training.augment import PLAIN, color, compose, crop, erase, mix, rotation
from ablate.training.augment.streams import ROLES, generators, move

SHAPES = [(7, 3, 32, 32), (7, 1, 20, 33), (1, 3, 33, 20), (1, 1, 16, 16)]
BILINEAR, NEAREST = v2.InterpolationMode.BILINEAR, v2.InterpolationMode.NEAREST


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def images(request, shape):
    return noise(shape).contiguous(memory_format=request.param)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(shape):
    """White noise: the image that forgives a misplaced pixel least."""
    return torch.rand(shape, generator=generator(1))


def one_by_one(images, transform, *parameters):
    """Apply a transform of one image to each of them with its own parameters."""
    return torch.stack([transform(image, *(p.tolist() for p in own)) for image, *own in zip(images, *parameters, strict=True)])


def columns(rows, number):
    """Repeat rows of parameters until there are as many as images: a tensor (number,) for each column."""
    return [torch.tensor(column) for column in zip(*itertools.islice(itertools.cycle(rows), number), strict=True)]


def distance(ours, theirs):
    """Measure the largest difference of two batches in levels of 1/255."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float32
    return float((ours.cpu() - theirs).abs().max()) * 255


# Crops and mirroring, read out of a data set


def stored(shape, dtype, images=9):
    """Return a data set (N, H, W, C), and images of it to read, in no order and some of them twice."""
    batch, channels, height, width = shape
    pixels = torch.randint(0, 256, (images, height, width, channels), generator=generator(2), dtype=torch.uint8)
    which = torch.tensor([3, 8, 3, 0, 0, 5, 1])[:batch]
    return pixels if dtype == torch.uint8 else pixels.to(dtype) / 255, which


def padded_crop(image, top, left, mirrored, *, padding, mode):
    """Do to one image, by torchvision, what `cut` does to a batch."""
    padded = reference.pad(image, [padding] * 4, padding_mode={"zeros": "constant"}.get(mode, mode))
    found = reference.crop(padded, top, left, *image.shape[1:])
    return reference.horizontal_flip(found) if mirrored else found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["bytes", "floats"])
@pytest.mark.parametrize("padding", [0, 1, 4, 15])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_cut_is_exactly_torchvisions_padding_crop_and_flip(shape, mode, padding, dtype, device):
    pixels, which = stored(shape, dtype)
    batch = len(which)
    some = crop.sample_flip(batch, generator(3))
    places = [
        crop.sample_random_crop(batch, padding, generator()),
        columns(itertools.product((0, 2 * padding), (0, 2 * padding)), batch),  # the outermost corners
        columns([(2 * padding, 2 * padding)], batch),
    ]
    for (top, left), mirrored in itertools.product(places, (some, ~some, torch.zeros_like(some))):
        found = crop.cut(*move(device, pixels, which, top, left, mirrored), padding=padding, mode=mode)
        expected = one_by_one(
            pixels[which].permute(0, 3, 1, 2), lambda *own: padded_crop(*own, padding=padding, mode=mode), top, left, mirrored
        )
        assert found.dtype == dtype
        assert torch.equal(found.cpu().permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["bytes", "floats"])
def test_cut_without_padding_is_exactly_torchvisions_flip_of_the_chosen_images(shape, dtype, device):
    pixels, which = stored(shape, dtype)
    mirrored, nowhere = torch.arange(len(which)) % 3 != 1, torch.zeros(len(which), dtype=torch.long)
    found = crop.cut(*move(device, pixels, which, nowhere, nowhere, mirrored)).cpu().permute(0, 3, 1, 2)
    chosen = pixels[which].permute(0, 3, 1, 2)
    assert torch.equal(found[mirrored], reference.horizontal_flip(chosen[mirrored]))
    assert torch.equal(found[~mirrored], chosen[~mirrored])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["bytes", "floats"])
def test_take_reads_images_as_they_are(shape, dtype, device):
    pixels, which = stored(shape, dtype)
    assert torch.equal(crop.take(*move(device, pixels, which)).cpu(), pixels[which])


def test_reading_leaves_the_data_set_as_it_is():
    pixels, which = stored(SHAPES[0], torch.uint8)
    before = pixels.clone()
    crop.take(pixels, which).zero_()
    for mode in ("zeros", "reflect"):
        crop.cut(pixels, which, *crop.sample_random_crop(7, 4, generator()), which > 3, padding=4, mode=mode).zero_()
    assert torch.equal(pixels, before)


def boxes(height, width, number):
    """Return fixed boxes: the whole image, a single pixel, a row, a column, and small ones at each corner; then drawn ones."""
    fixed = [
        (0, 0, height, width), (height - 1, width - 1, 1, 1), (2, 0, 1, width), (0, 5, height, 1),
        (0, 0, 5, 7), (height - 5, width - 7, 5, 7), (3, 2, height - 3, width - 4),
    ]  # fmt: skip
    drawn = torch.stack(crop.sample_random_resized_crop(20, height, width, generator(4)), 1).tolist()
    return columns([*fixed, *drawn], number)


@pytest.mark.parametrize("shape", [*((27, *shape[1:]) for shape in SHAPES), (1, 3, 48, 48)], ids=str)
@pytest.mark.parametrize("flips", [False, True], ids=["", "mirrored"])
def test_random_resized_crop_is_torchvisions_antialiased_bilinear_resize_of_the_box(images, flips, device):
    chosen = boxes(*images.shape[2:], len(images))
    mirrored = crop.sample_flip(len(images), generator(3)) if flips else torch.zeros(len(images), dtype=torch.bool)

    def expected(image, top, left, height, width, mirror):
        resized = reference.resized_crop(
            image, top, left, height, width, size=list(image.shape[1:]), interpolation=BILINEAR, antialias=True
        )
        return reference.horizontal_flip(resized) if mirror else resized

    ours = crop.random_resized_crop(*move(device, images, *chosen, *([mirrored] if flips else [])))
    assert distance(ours, one_by_one(images, expected, *chosen, mirrored)) <= 1e-3


# Rotation


@pytest.mark.parametrize("degrees", [0.0, 5.0, 15.0, 90.0, 180.0])
def test_rotation_is_torchvisions_bilinear_rotation_with_black_corners(images, degrees, device):
    angle = rotation.sample_rotation(len(images), degrees, generator(5)) if degrees else torch.zeros(len(images))

    # fill=None is black. torchvision's fill=0 weights the outline by its own coverage a second time, on tensors only.
    def expected(image, turned):
        return reference.rotate(image, turned, interpolation=BILINEAR, fill=None)

    assert distance(rotation.rotate(*move(device, images, angle)), one_by_one(images, expected, angle)) <= 1e-2


TIES = 1e-4
"""Share of the pixels that may be read from the neighbour: those that lie between two to within rounding."""


@pytest.mark.parametrize("degrees", [5.0, 15.0, 180.0])
@pytest.mark.parametrize("size", [(32, 32), (20, 33), (33, 20)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_nearest_rotation_is_torchvisions_but_for_ties(degrees, size, channels, device):
    images = noise((40, channels, *size))
    angle = rotation.sample_rotation(40, degrees, generator(5))
    ours = rotation.rotate(*move(device, images, angle), interpolation="nearest").cpu()
    theirs = one_by_one(images, lambda image, turned: reference.rotate(image, turned, interpolation=NEAREST, fill=0), angle)
    assert (ours != theirs).double().mean() <= TIES
    assert (ours == 0).any(), "corners are black"


@pytest.mark.parametrize("angle", [90.0, 180.0, -90.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_rotation_is_counter_clockwise(angle, interpolation):
    images = noise((2, 3, 16, 16))
    turned = rotation.rotate(images, torch.full((2,), angle), interpolation=interpolation)
    assert distance(turned, torch.rot90(images, round(angle / 90), (2, 3))) <= 1e-2


# Colour jitter

ADJUST = {
    color.BRIGHTNESS: reference.adjust_brightness,
    color.CONTRAST: reference.adjust_contrast,
    color.SATURATION: reference.adjust_saturation,
    color.HUE: reference.adjust_hue,
}
SUBSETS = [kinds for number in (1, 2, 3, 4) for kinds in itertools.combinations(ADJUST, number)]
a, b, c = 0.2, 0.4, 0.7
PALETTE = [
    (0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1),  # greys
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1),  # pure colours
    (a, a, b), (a, b, a), (b, a, a), (b, b, a), (b, a, b), (a, b, b),  # ties
    *itertools.permutations((a, b, c)), (b, b + 1e-6, b), (0, 0, 1e-6), (1, 1 - 1e-6, 1),
]  # fmt: skip


def colourful(number, channels=3, size=(8, 9)):
    """Return noise in which every image has all the special pixels, some images are of one colour, and one is half grey."""
    images = noise((number, channels, *size))
    special = torch.tensor(PALETTE, dtype=torch.float32).T[:channels]
    images.flatten(2)[:, :, : special.shape[1]] = special
    plain = [images.new_tensor(colour)[:channels, None, None] for colour in PALETTE[:10]]
    for i, colour in enumerate(plain[: max(0, number - 4)]):
        images[5 * i + 4 : 5 * i + 5] = colour
    images[3::11, :, : size[0] // 2] = images[3::11, :1, : size[0] // 2]
    return images


def jittered(image, order, factors):
    """Adjust one image by torchvision, one operation after another."""
    for kind, factor in zip(order, factors, strict=True):
        image = ADJUST[kind](image, factor)
    return image


def every_order(kinds):
    """Return each order of some operations with all their factors extreme, and again with drawn ones: at least 64 rows of K each."""
    ends = {color.HUE: (-0.5, 0.5)}
    orders, factors = [], []
    for order in itertools.permutations(kinds):
        for extreme in itertools.product(*(ends.get(kind, (0.0, 2.0)) for kind in order)):
            orders.append(order)
            factors.append(extreme)
    times = -(-32 // len(orders))
    order, extremes = torch.tensor(orders * times), torch.tensor(factors * times)
    drawn = torch.rand(extremes.shape, generator=generator(6))
    return order.repeat(2, 1), torch.cat([extremes, torch.where(order == color.HUE, drawn - 0.5, 2 * drawn)])


@pytest.mark.parametrize("kinds", SUBSETS, ids=lambda kinds: "".join("bcsh"[kind] for kind in kinds))
@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_is_torchvisions_of_each_image_in_its_own_order(kinds, channels, device):
    order, factors = every_order(kinds)
    images = colourful(len(order), channels)
    ours = color.color_jitter(images.to(device), order, factors)
    assert distance(ours, one_by_one(images, jittered, order, factors)) <= 1e-2
    assert ours.min() >= 0
    assert ours.max() <= 1


ALL = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)


def test_color_jitter_of_drawn_parameters_is_torchvisions(images, device):
    order, factors = color.sample_color_jitter(len(images), ALL, generator(3))
    assert distance(color.color_jitter(images.to(device), order, factors), one_by_one(images, jittered, order, factors)) <= 1e-2


@pytest.mark.parametrize("place", range(4))
def test_color_jitter_of_one_image_whose_hue_comes_first_second_third_or_last(place):
    order = torch.tensor([[*range(place), color.HUE, *range(place, 3)]])
    factors = torch.where(order == color.HUE, 0.2, 1.4)
    images = colourful(1)
    assert distance(color.color_jitter(images, order, factors), one_by_one(images, jittered, order, factors)) <= 1e-2


@pytest.mark.parametrize("view", ["sliced", "turned", "channels_last", "expanded"])
def test_color_jitter_of_images_that_are_not_contiguous(view):
    whole = colourful(7, size=(18, 18))
    images = {
        "sliced": whole[:, :, ::2, 1::3],
        "turned": whole.transpose(2, 3),
        "channels_last": whole.contiguous(memory_format=torch.channels_last),
        "expanded": whole[:1].expand(7, -1, -1, -1),
    }[view]
    order, factors = color.sample_color_jitter(7, ALL, generator(3))
    before = images.clone()
    assert distance(color.color_jitter(images, order, factors), one_by_one(before, jittered, order, factors)) <= 1e-2
    assert torch.equal(images, before)


@pytest.mark.parametrize(("jitter", "channels"), [(ColorJitter(), 3), (ColorJitter(hue=0.5), 1), (ColorJitter(saturation=1.0), 1)])
def test_color_jitter_with_nothing_to_do_gives_the_images_back(jitter, channels):
    images = colourful(7, channels)
    assert torch.equal(color.color_jitter(images, *color.sample_color_jitter(7, jitter, generator())), images)


# Boxes of one colour


@pytest.mark.parametrize("kind", ["erasing", "cutout", "fixed", "nothing"])
def test_erase_is_exactly_torchvisions(images, kind, device):
    batch, _, *size = images.shape
    chosen = {
        "erasing": lambda: erase.sample_erasing(batch, 0.7, *size, generator(1)),
        "cutout": lambda: erase.sample_cutout(batch, 9, *size, generator(1)),
        "fixed": lambda: boxes(*size, batch),
        "nothing": lambda: columns([(3, 2, 0, 0), (0, 0, 0, 5), (0, 0, 5, 0), (size[0], size[1], 0, 0)], batch),
    }[kind]()
    expected = one_by_one(images, lambda image, *box: reference.erase(image, *box, v=torch.zeros(1)), *chosen)
    assert torch.equal(erase.erase(*move(device, images, *chosen)).cpu(), expected)


def test_a_square_larger_than_the_image_covers_all_of_it():
    where = erase.sample_cutout(50, 1024, 20, 33, generator())
    assert torch.equal(erase.erase(noise((50, 1, 20, 33)), *where), torch.zeros(50, 1, 20, 33))


# Mixing


def with_partner(image, other, transform, params):
    """Mix one image with another by torchvision: (the image, its label's share). Its pairs are neighbours in the batch."""
    pair, labels = torch.stack([image, other]), torch.eye(2)
    params = {"labels": labels, "batch_size": 2} | params
    return transform.transform(pair, params)[0], transform.transform(labels, params)[0]


def test_mixup_is_torchvisions_with_the_same_share(images, device):
    partner, share = mix.sample_mixup(len(images), 1.0, generator(2))
    ours = mix.mixup(*move(device, images, partner, share))
    for i, (own, other) in enumerate(zip(share.tolist(), partner.tolist(), strict=True)):
        expected, label = with_partner(images[i], images[other], v2.MixUp(), {"lam": own})
        assert distance(ours[i], expected) <= 1e-4
        assert label.tolist() == pytest.approx([own, 1 - own], abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mixup_at_its_ends_is_one_of_the_two_images(share):
    images, partner = noise((7, 3, 8, 8)), torch.arange(7).roll(1)
    assert torch.equal(mix.mixup(images, partner, torch.full((7,), share)), images if share else images[partner])


def test_cutmix_is_exactly_torchvisions_with_the_same_box(images, device):
    size = images.shape[2:]
    partner, top, left, high, wide, share = mix.sample_cutmix(len(images), 1.0, *size, generator(2))
    ours = mix.cutmix(*move(device, images, partner, top, left, high, wide)).cpu()
    for i, other in enumerate(partner.tolist()):
        x1, y1, x2, y2 = (int(side[i]) for side in (left, top, left + wide, top + high))
        lam = 1 - (x2 - x1) * (y2 - y1) / (size[0] * size[1])
        expected, label = with_partner(images[i], images[other], v2.CutMix(), {"box": (x1, y1, x2, y2), "lam_adjusted": lam})
        assert torch.equal(ours[i], expected)
        assert label.tolist() == pytest.approx([float(share[i]), 1 - float(share[i])], abs=1e-6)


def test_the_share_of_cutmix_is_that_of_the_pixels_that_stay():
    partner, *where, share = mix.sample_cutmix(200, 1.0, 20, 33, generator())
    stays = mix.cutmix(torch.ones(200, 1, 20, 33), partner, *where) == 1
    assert stays.all()
    taken = mix.cutmix(torch.eye(200)[:, :, None, None].expand(-1, -1, 20, 33), partner, *where)
    own = taken.diagonal().mean((0, 1))
    elsewhere = partner != torch.arange(200)
    assert (own - share)[elsewhere].abs().max() <= 1e-6


BOTH = Augment(crop="none", flip=False, mixup=1.0, cutmix=1.0)


def test_with_both_ways_on_each_image_is_mixed_in_exactly_one_of_them(images, device):
    mixed = compose(BOTH, generators(3)).mix(images.to(device))
    streams = generators(3)
    partner, share = mix.sample_mixup(len(images), 1.0, streams["mixup"])
    blended = mix.mixup(images, partner, share)
    other, *where, rest = mix.sample_cutmix(len(images), 1.0, *images.shape[2:], streams["cutmix"])
    boxed = mix.cutmix(images, other, *where)
    heads = torch.rand(len(images), generator=streams["coin"]) < 0.5
    for i, head in enumerate(heads.tolist()):
        expected, own, whose = (blended, share, partner) if head else (boxed, rest, other)
        assert distance(mixed.images[i], expected[i]) <= 1e-4
        assert mixed.share[i] == own[i]
        assert mixed.partner[i] == whose[i]
    if len(images) > 1:
        assert 0 < heads.sum() < len(images), "the seed must show both"


def test_the_coin_between_the_two_ways_is_fair():
    mixed = compose(BOTH, generators(3)).mix(noise((DRAWS, 1, 4, 4)))
    boxed = sum(round(16 * share) == 16 * share for share in mixed.share.tolist())  # a whole number of pixels: a box
    assert a_share_of(boxed, DRAWS, 0.5)


# Distributions

DRAWS = 4000
LEVEL = 1e-4
"""Of each of some 300 comparisons: all of them together pass by chance in 97 of 100 versions of torch's generators."""

SAMPLERS = {
    "random_crop": lambda batch, g: torch.stack(crop.sample_random_crop(batch, 4, g)),
    "random_resized_crop": lambda batch, g: torch.stack(crop.sample_random_resized_crop(batch, 32, 32, g)),
    "flip": crop.sample_flip,
    "rotation": lambda batch, g: rotation.sample_rotation(batch, 15.0, g),
    "color_jitter": lambda batch, g: torch.cat(color.sample_color_jitter(batch, ALL, g), 1),
    "erasing": lambda batch, g: torch.stack(erase.sample_erasing(batch, 0.5, 32, 32, g)),
    "cutout": lambda batch, g: torch.stack(erase.sample_cutout(batch, 16, 32, 32, g)),
    "mixup": lambda batch, g: torch.stack(mix.sample_mixup(batch, 1.0, g)),
    "cutmix": lambda batch, g: torch.stack(mix.sample_cutmix(batch, 1.0, 32, 32, g)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_draws_the_same_parameters_and_another_seed_others(name):
    sample = SAMPLERS[name]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = [sample(50, generator(7)), sample(50, generator(7)), sample(50, generator(8))]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    again = generator(7)
    assert not torch.equal(sample(50, again), sample(50, again)), "a second batch must be drawn anew"
    assert torch.equal(torch.get_rng_state(), before), "the global generator belongs to dropout"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_of_one_can_be_drawn(name):
    assert 1 in SAMPLERS[name](1, generator(7)).shape


def torchvisions(transform, image):
    """Draw parameters by torchvision's own sampler, for as many images one by one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return [transform.make_params([image]) for _ in range(DRAWS)]


def table(sample, edges):
    """Count into bins that end with these values."""
    return torch.bincount(torch.searchsorted(edges, sample), minlength=len(edges)).double()


def alike(ours, theirs):
    """Whether two samples may be of one distribution: of whole numbers by chi-square, of others by Kolmogorov-Smirnov.

    Whole numbers are counted in at most 24 bins of about the same content. Others are rounded: theirs have 53 bits.
    """
    ours, theirs = (torch.as_tensor(x).double().round(decimals=6) for x in (ours, theirs))
    both = torch.cat([ours, theirs])
    if not torch.equal(both, both.round()):
        return stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > LEVEL
    edges = both.unique()
    if len(edges) == 1:
        return True
    if len(edges) > 24:
        edges = both.quantile(torch.linspace(0, 1, 25, dtype=torch.float64)[1:], interpolation="higher").unique()
    return stats.chi2_contingency(torch.stack([table(x, edges) for x in (ours, theirs)]).numpy()).pvalue > LEVEL


def equally_likely(values, possible):
    """Whether whole numbers may be uniform on the possible ones, and whether all of them are among these."""
    counts = torch.bincount(torch.as_tensor(values), minlength=possible)
    return len(counts) == possible and stats.chisquare(counts.numpy()).pvalue > LEVEL


def a_share_of(found, number, probability):
    """Whether so many of a number may be a draw with this probability."""
    return stats.binomtest(int(found), number, probability).pvalue > LEVEL


def test_alike_tells_samples_apart():
    drawn, other = (torch.rand(DRAWS, generator=generator(seed)) for seed in (0, 1))
    assert alike(drawn, other)
    assert not alike(drawn + 0.05, other)
    assert not alike((drawn - 0.5) * 1.2, other - 0.5)
    ours, theirs = ((9 * x).long() for x in (drawn, other))
    assert alike(ours, theirs)
    assert not alike(ours.clamp_max(7), theirs)
    assert not alike((9 * drawn**1.2).long(), theirs)
    assert not alike(torch.zeros(DRAWS), torch.ones(DRAWS))
    assert equally_likely(ours, 9)
    assert not equally_likely(ours, 10)
    assert not equally_likely(ours, 8)
    assert not a_share_of(0.46 * DRAWS, DRAWS, 0.5)


@pytest.mark.parametrize("padding", [1, 4])
def test_random_crop_draws_its_place_as_torchvision_does(padding):
    top, left = crop.sample_random_crop(DRAWS, padding, generator())
    theirs = torchvisions(v2.RandomCrop(32), torch.zeros(3, 32 + 2 * padding, 32 + 2 * padding))
    assert alike(top, [p["top"] for p in theirs])
    assert alike(left, [p["left"] for p in theirs])
    places = 2 * padding + 1
    assert equally_likely(top * places + left, places**2), "top and left are independent"


def test_every_other_image_is_flipped():
    mirrored = crop.sample_flip(DRAWS, generator())
    assert a_share_of(mirrored.sum(), DRAWS, 0.5)
    assert equally_likely(mirrored[::2].long() * 2 + mirrored[1::2], 4), "neighbours are independent"


def alike_boxes(ours, theirs, height, width):
    """Compare sides, place, area, ratio, and where in the room left to it a box is, by two samples of boxes (B,) each."""
    for one, other in zip(ours, theirs, strict=True):
        assert alike(one, other)
    derived = []
    for top, left, high, wide in ([part.double() for part in own] for own in (ours, theirs)):
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + high <= height).all()
        assert (left + wide <= width).all()
        room = torch.stack([top / (height - high + 1), left / (width - wide + 1)])
        derived.append([high * wide, ((high + 0.5) / (wide + 0.5)).log(), *room, top * left, (room[0] - 0.5) * (room[1] - 0.5)])
    for one, other in zip(*derived, strict=True):
        assert alike(one, other)


def by_name(found, *names):
    return [torch.tensor([float(p[name]) for p in found]).double() for name in names]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33), (16, 120)], ids=str)  # the last: often the fallback
def test_random_resized_crop_draws_its_boxes_as_torchvision_does(height, width):
    ours = crop.sample_random_resized_crop(DRAWS, height, width, generator())
    theirs = by_name(torchvisions(v2.RandomResizedCrop(32), torch.zeros(3, height, width)), "top", "left", "height", "width")
    alike_boxes(ours, theirs, height, width)
    top, left, high, wide = ours
    assert high.min() >= 1
    assert wide.min() >= 1
    assert (top == 0).any()
    assert (top + high == height).any()
    assert (left == 0).any()


@pytest.mark.parametrize(("height", "width"), [(16, 400), (400, 16), (16, 300)], ids=str)
def test_random_resized_crop_falls_back_to_the_largest_centred_box_as_torchvision_does(height, width):
    drawn = torch.stack(crop.sample_random_resized_crop(20, height, width, generator()))
    p = v2.RandomResizedCrop(32).make_params([torch.zeros(3, height, width)])
    expected = torch.tensor([p["top"], p["left"], p["height"], p["width"]])
    assert torch.equal(drawn, expected[:, None].expand(4, 20))


@pytest.mark.parametrize("degrees", [15.0, 180.0])
def test_rotation_draws_its_angle_as_torchvision_does(degrees):
    ours = rotation.sample_rotation(DRAWS, degrees, generator())
    assert alike(ours, [p["angle"] for p in torchvisions(v2.RandomRotation(degrees), torch.zeros(3, 32, 32))])
    assert -degrees <= ours.min() < -0.99 * degrees
    assert 0.99 * degrees < ours.max() <= degrees


ORDERS = {order: number for number, order in enumerate(itertools.permutations(range(4)))}


@pytest.mark.parametrize("jitter", [ALL, ColorJitter(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)], ids=["usual", "widest"])
def test_color_jitter_draws_factors_and_orders_as_torchvision_does(jitter):
    order, factors = color.sample_color_jitter(DRAWS, jitter, generator())
    theirs = torchvisions(v2.ColorJitter(**jitter.model_dump()), torch.zeros(3, 8, 8))
    for kind, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        ours = factors[order == kind]
        middle, reach = (0 if name == "hue" else 1), getattr(jitter, name)
        assert len(ours) == DRAWS
        assert alike(ours, [p[f"{name}_factor"] for p in theirs])
        assert middle - reach - 1e-6 <= ours.min() < middle - 0.99 * reach
        assert middle + 0.99 * reach < ours.max() <= middle + reach + 1e-6
        for place in range(4):
            assert alike(factors[:, place][order[:, place] == kind], ours), "a factor knows nothing of its place"
    drawn = torch.tensor([ORDERS[tuple(own)] for own in order.tolist()])
    assert equally_likely(drawn, 24)
    assert alike(drawn, [ORDERS[tuple(p["fn_idx"].tolist())] for p in theirs])


@pytest.mark.parametrize("kinds", SUBSETS, ids=lambda kinds: "".join("bcsh"[kind] for kind in kinds))
def test_color_jitter_draws_each_order_of_what_is_on_equally_often(kinds):
    names = list(ColorJitter.model_fields)
    order, factors = color.sample_color_jitter(DRAWS, ColorJitter(**{names[kind]: 0.3 for kind in kinds}), generator())
    assert order.shape == factors.shape == (DRAWS, len(kinds))
    possible = {own: number for number, own in enumerate(itertools.permutations(kinds))}
    drawn = torch.tensor([possible[tuple(own)] for own in order.tolist()])
    assert len(possible) == 1 or equally_likely(drawn, len(possible))


@pytest.mark.parametrize("kind", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_switching_one_part_of_color_jitter_off_moves_none_of_the_others(kind):
    order, factors = color.sample_color_jitter(50, ALL, generator())
    less = ALL.model_copy(update={list(ColorJitter.model_fields)[kind]: 0.0})
    without, others = color.sample_color_jitter(50, less, generator())
    assert torch.equal(without, order[order != kind].view(50, 3))
    assert torch.equal(others, factors[order != kind].view(50, 3))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33), (16, 120)], ids=str)
def test_erasing_draws_its_boxes_as_torchvision_does(height, width):
    found = torchvisions(v2.RandomErasing(p=1), torch.zeros(3, height, width))
    theirs = by_name([p for p in found if p["v"] is not None], "i", "j", "h", "w")
    ours = torch.stack(erase.sample_erasing(DRAWS, 1.0, height, width, generator())).double()
    fits = ours[2] > 0
    alike_boxes(ours[:, fits], theirs, height, width)
    assert alike(fits, torch.tensor([p["v"] is not None for p in found])), "the ten tries fail equally often"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_erasing_leaves_images_whole_in_the_rate_that_it_says(p):
    top, left, high, wide = erase.sample_erasing(DRAWS, p, 32, 32, generator())
    chosen = high > 0
    assert torch.equal(chosen, wide > 0)
    assert a_share_of(chosen.sum(), DRAWS, p)
    always = [part[chosen] for part in erase.sample_erasing(DRAWS, 1.0, 32, 32, generator(1))]
    assert alike(high[chosen] * wide[chosen], always[2] * always[3]), "the boxes are the same"
    assert alike(top[chosen], always[0])
    assert alike(left[chosen], always[1])


def test_erasing_never_and_always():
    assert not torch.stack(erase.sample_erasing(DRAWS, 0.0, 32, 32, generator())).any(1)[2:].any()
    assert (torch.stack(erase.sample_erasing(DRAWS, 1.0, 32, 32, generator()))[2:] > 0).all()


def test_erasing_leaves_an_image_whole_where_no_box_is_smaller_as_torchvision_does():
    assert not torch.stack(erase.sample_erasing(50, 1.0, 1, 30, generator()))[2:].any()
    assert v2.RandomErasing(p=1).make_params([torch.zeros(3, 1, 30)])["v"] is None


def visible(size, side):
    """List (first pixel, pixels) of the visible part of a stretch for each centre."""
    parts = [[i for i in range(centre - side // 2, centre - side // 2 + side) if 0 <= i < size] for centre in range(size)]
    return [(part[0], len(part)) for part in parts]


@pytest.mark.parametrize("side", [1, 8, 9, 16, 40])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33)], ids=str)
def test_the_centre_of_cutout_is_any_pixel_and_what_is_outside_is_cut_off(side, height, width):
    top, left, high, wide = erase.sample_cutout(DRAWS, side, height, width, generator())
    for size, start, length in ((height, top, high), (width, left, wide)):
        possible = visible(size, side)
        kinds = sorted(set(possible))
        expected = torch.tensor([possible.count(kind) for kind in kinds]).double() * DRAWS / size
        drawn = list(zip(start.tolist(), length.tolist(), strict=True))
        counts = torch.tensor([drawn.count(kind) for kind in kinds])
        assert counts.sum() == DRAWS, "nothing else is drawn"
        assert len(kinds) == 1 or stats.chisquare(counts.numpy(), expected.numpy()).pvalue > LEVEL
    if side <= 16:
        assert stats.pearsonr(top.numpy(), left.numpy()).pvalue > LEVEL, "rows and columns are independent"


@pytest.mark.parametrize("side", [8, 16])
def test_an_even_square_of_cutout_is_devries_and_taylors(side):
    def theirs(centre, size):  # github.com/uoguelph-mlrg/Cutout, util/cutout.py
        return max(centre - side // 2, 0), min(centre + side // 2, size)

    starts = {theirs(centre, 32) for centre in range(32)}
    top, _, high, _ = erase.sample_cutout(DRAWS, side, 32, 32, generator())
    assert set(zip(top.tolist(), (top + high).tolist(), strict=True)) == starts


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_of_mixup_is_beta_distributed_as_torchvisions(alpha):
    _, share = mix.sample_mixup(DRAWS, alpha, generator())
    theirs = [p["lam"] for p in torchvisions(v2.MixUp(alpha=alpha, num_classes=2), torch.zeros(1))]
    assert alike(share, theirs)
    assert stats.kstest(share.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > LEVEL
    assert share.dtype == torch.float32
    assert 0 <= share.min() < share.max() <= 1


@pytest.mark.parametrize("alpha", [0.01, 100.0])
def test_shares_of_extreme_alphas_are_numbers_in_0_to_1(alpha):
    _, share = mix.sample_mixup(DRAWS, alpha, generator())
    assert share.isfinite().all()
    assert stats.kstest(share.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > LEVEL or alpha < 0.1  # rounded to 0 and 1
    assert share.min() >= 0
    assert share.max() <= 1


def test_the_partners_of_mixup_and_cutmix_are_permutations_that_pair_all_equally_often():
    for sample in (lambda g: mix.sample_mixup(7, 1.0, g), lambda g: mix.sample_cutmix(7, 1.0, 8, 8, g)):
        drawn = generator()
        partners = torch.stack([sample(drawn)[0] for _ in range(500)])
        assert torch.equal(partners.sort(1).values, torch.arange(7).expand(500, 7))
        for image in range(7):
            assert equally_likely(partners[:, image], 7)


def test_two_shares_of_one_batch_and_of_two_batches_are_independent():
    drawn = generator()
    shares = torch.stack([mix.sample_mixup(2, 1.0, drawn)[1] for _ in range(1000)]).double()
    assert stats.pearsonr(shares[:, 0], shares[:, 1]).pvalue > LEVEL
    assert stats.pearsonr(shares[1:, 0], shares[:-1, 0]).pvalue > LEVEL
    assert len(shares.unique()) == 2000


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33)], ids=str)
def test_cutmix_draws_its_boxes_and_shares_as_torchvision_does(alpha, height, width):
    _, top, left, high, wide, share = mix.sample_cutmix(DRAWS, alpha, height, width, generator())
    found = torchvisions(v2.CutMix(alpha=alpha, num_classes=2), torch.zeros(2, 3, height, width))
    x1, y1, x2, y2 = torch.tensor([p["box"] for p in found]).unbind(1)
    alike_boxes((top, left, high, wide), (y1, x1, y2 - y1, x2 - x1), height, width)
    assert alike(share, [p["lam_adjusted"] for p in found])
    assert torch.allclose(share, 1 - high * wide / (height * width), atol=1e-6)


# Streams

CHOICES = {
    "crop": ({"crop": "random_crop"}, {"crop": "random_resized_crop"}),
    "flip": ({"flip": True},),
    "rotation": ({"rotation": 15.0},),
    "color_jitter": ({"color_jitter": ALL},),
    "erasing": ({"erasing": 0.5},),
    "cutout": ({"cutout": 4},),
    "mixup": ({"mixup": 1.0},),
    "cutmix": ({"cutmix": 1.0},),
}
OFF = {"crop": "none", "flip": False}
EVERYTHING = Augment(
    crop="random_resized_crop", flip=True, rotation=15.0, color_jitter=ALL, erasing=0.5, cutout=4, mixup=1.0, cutmix=1.0
)  # fmt: skip


def batch_of(augmentation, *, images=6, channels=3, size=(8, 9)):
    """Read and augment one batch: (the images, the share of each that is its own)."""
    pixels = torch.randint(0, 256, (20, *size, channels), generator=generator(2), dtype=torch.uint8)
    x = augmentation.read(pixels, torch.arange(images)).permute(0, 3, 1, 2) / 255
    for step in (*augmentation.steps, *augmentation.erasures):
        x = step(x)
    if augmentation.mix is None:
        return x, torch.ones(images)
    mixed = augmentation.mix(x)
    return mixed.images, mixed.share


def states(augment, batches=2):
    """Tell the states of all generators after some batches."""
    streams = generators(5)
    augmentation = compose(augment, streams)
    for _ in range(batches):
        batch_of(augmentation)
    return {role: bytes(stream.get_state().tolist()) for role, stream in streams.items()}


def choices():
    """Return every combination of what can be on: (the roles, the fields)."""
    for levels in itertools.product(*((None, *levels) for levels in CHOICES.values())):
        on = {role: level for role, level in zip(CHOICES, levels, strict=True) if level is not None}
        fields = OFF.copy()
        for level in on.values():
            fields.update(level)
        yield on, Augment(**fields)


def test_what_one_augmentation_draws_never_depends_on_the_others():
    fresh = states(Augment(**OFF))
    assert fresh == {role: bytes(stream.get_state().tolist()) for role, stream in generators(5).items()}, "off draws nothing"
    alone = {}
    for role, levels in CHOICES.items():
        for level in levels:
            found = states(Augment(**OFF | level))
            assert {other for other in ROLES if found[other] != fresh[other]} == {role}, "it draws from its own stream only"
            alone[role, str(level)] = found[role]
    coin = states(BOTH)["coin"]
    assert coin != fresh["coin"]
    for on, augment in choices():
        expected = fresh | {role: alone[role, str(level)] for role, level in on.items()}
        if "mixup" in on and "cutmix" in on:
            expected["coin"] = coin
        assert states(augment) == expected, augment


def test_every_role_is_drawn_from_by_some_recipe_and_no_recipe_needs_another():
    assert set(CHOICES) | {"coin"} == set(ROLES)
    fresh, used = states(Augment(**OFF)), states(EVERYTHING)
    assert [role for role in ROLES if used[role] == fresh[role]] == []


@pytest.mark.parametrize("changed", [{"hue": 0.0}, {"brightness": 0.0, "saturation": 0.0}], ids=str)
def test_what_color_jitter_draws_next_does_not_depend_on_which_of_its_parts_are_on(changed):
    whole, part = (Augment(**OFF, color_jitter=jitter) for jitter in (ALL, ALL.model_copy(update=changed)))
    assert states(whole) == states(part)


def test_padding_interpolation_and_strength_do_not_move_what_is_drawn_by_others():
    usual = Augment(rotation=15.0, erasing=0.5, mixup=1.0)
    other = Augment(padding=2, padding_mode="reflect", rotation=40.0, interpolation="nearest", erasing=0.1, mixup=0.2)
    assert states(usual) == states(other)


def test_each_role_and_each_seed_has_a_generator_of_its_own():
    found = [tuple(stream.get_state().tolist()) for seed in range(3) for stream in generators(seed).values()]
    assert len(set(found)) == len(found) == 3 * len(ROLES)
    assert generators(5)["crop"].initial_seed() == torch.Generator().manual_seed(identity.stream_seed(5, "crop")).initial_seed()


def test_the_same_seed_gives_the_same_batches_and_another_one_others():
    before = torch.get_rng_state()
    one, same, other = (compose(EVERYTHING, generators(seed)) for seed in (5, 5, 6))
    for _ in range(3):
        x, y, z = (batch_of(augmentation)[0] for augmentation in (one, same, other))
        assert torch.equal(x, y)
        assert not torch.equal(x, z)
    assert torch.equal(torch.get_rng_state(), before), "the global generator belongs to dropout"


def test_generators_with_a_restored_state_go_on_identically():
    streams = generators(5)
    augmentation = compose(EVERYTHING, streams)
    batch_of(augmentation)
    kept = {role: stream.get_state() for role, stream in streams.items()}
    expected = [batch_of(augmentation) for _ in range(3)]
    restored = generators(99)
    later = compose(EVERYTHING, restored)
    for role, state in kept.items():
        restored[role].set_state(state)
    for x, share in expected:
        y, own = batch_of(later)
        assert torch.equal(x, y)
        assert torch.equal(share, own)


# Composition


def test_nothing_on_reads_images_as_they_are():
    assert compose(Augment(**OFF), generators(5)) == PLAIN
    assert compose(Augment(crop="random_crop", padding=0, flip=False), generators(5)) == PLAIN


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", [0, 3])
def test_the_padding_and_flip_of_the_recipe_are_those_of_the_crop(padding, padding_mode, flip):
    pixels, which = stored(SHAPES[0], torch.uint8)
    augmentation = compose(Augment(padding=padding, padding_mode=padding_mode, flip=flip), generators(5))
    top, left = crop.sample_random_crop(7, padding, generators(5)["crop"])
    mirrored = crop.sample_flip(7, generators(5)["flip"]) & flip
    expected = crop.cut(pixels, which, top, left, mirrored, padding=padding, mode=padding_mode)
    assert torch.equal(augmentation.read(pixels, which), expected)
    assert augmentation.steps == ()
    assert augmentation.mix is None


def test_everything_together_is_crop_rotation_color_jitter_erasing_cutout_then_mixing():
    images, streams, size = noise((6, 3, 8, 9)), generators(5), (8, 9)
    augmentation = compose(EVERYTHING, generators(5))
    assert augmentation.read is crop.take
    x = images
    for step in (*augmentation.steps, *augmentation.erasures):
        x = step(x)
    where = crop.sample_random_resized_crop(6, *size, streams["crop"])
    expected = crop.random_resized_crop(images, *where, crop.sample_flip(6, streams["flip"]))
    expected = rotation.rotate(expected, rotation.sample_rotation(6, 15.0, streams["rotation"]))
    expected = color.color_jitter(expected, *color.sample_color_jitter(6, ALL, streams["color_jitter"]))
    expected = erase.erase(expected, *erase.sample_erasing(6, 0.5, *size, streams["erasing"]))
    expected = erase.erase(expected, *erase.sample_cutout(6, 4, *size, streams["cutout"]))
    assert torch.equal(x, expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_the_interpolation_of_the_recipe_is_that_of_the_rotation(interpolation):
    images = noise((6, 3, 8, 9))
    (step,) = compose(Augment(**OFF, rotation=15.0, interpolation=interpolation), generators(5)).steps
    angle = rotation.sample_rotation(6, 15.0, generators(5)["rotation"])
    assert torch.equal(step(images), rotation.rotate(images, angle, interpolation=interpolation))


@pytest.mark.parametrize("role", ["random_crop", *CHOICES, "everything"])
def test_shape_type_and_range_are_kept_and_the_input_is_left_alone(images, role, device):
    level = {"random_crop": CHOICES["crop"][0], "crop": CHOICES["crop"][1]}.get(role) or CHOICES.get(role, ({},))[0]
    augmentation = compose(EVERYTHING if role == "everything" else Augment(**OFF | level), generators(2))
    before, x = images.clone(), images.to(device)
    for step in (*augmentation.steps, *augmentation.erasures):
        x = step(x)
    x = x if augmentation.mix is None else augmentation.mix(x).images
    assert (x.shape, x.dtype, x.device.type) == (before.shape, before.dtype, device.type)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6  # a weighted mean may round upwards
    assert torch.equal(images, before)
