"""Augmentations of whole batches agree with torchvision's of single images, and draw from their own streams.

Two samples are alike, and a share is what it should be, when a test at the level of LEVEL does not tell them
apart. All seeds are fixed, so that these tests give the same answer each time.
"""

import itertools

import pytest
import torch
from augmented import ADJUST, ALL, BOTH, DRAWS, SHAPES, SUBSETS, a_share_of, form, generator, noise, stored
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from ablate.recipe.fields import ColorJitter
from ablate.training.augment import color, compose, crop, erase, mix, rotation
from ablate.training.augment.streams import generators, move

BILINEAR, NEAREST = v2.InterpolationMode.BILINEAR, v2.InterpolationMode.NEAREST


def one_by_one(images, transform, *parameters):
    """Apply a transform of one image to each of them with its own parameters."""
    return torch.stack(
        [
            transform(image, *(p.tolist() for p in own))
            for image, *own in zip(images, *parameters, strict=True)
        ]
    )


def columns(rows, number):
    """Repeat rows of parameters until there are as many as images: a tensor (number,) for each column."""
    return [
        torch.tensor(column) for column in zip(*itertools.islice(itertools.cycle(rows), number), strict=True)
    ]


def distance(ours, theirs):
    """Measure the largest difference of two batches in levels of 1/255."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float32
    return float((ours.cpu() - theirs).abs().max()) * 255


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
            pixels[which].permute(0, 3, 1, 2),
            lambda *own: padded_crop(*own, padding=padding, mode=mode),
            top,
            left,
            mirrored,
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
        crop.cut(
            pixels, which, *crop.sample_random_crop(7, 4, generator()), which > 3, padding=4, mode=mode
        ).zero_()
    assert torch.equal(pixels, before)


def boxes(height, width, number):
    """Return fixed boxes: the whole image, a single pixel, a row, a column, and small ones at each corner.

    Then drawn ones.
    """
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
    mirrored = (
        crop.sample_flip(len(images), generator(3)) if flips else torch.zeros(len(images), dtype=torch.bool)
    )

    def expected(image, top, left, height, width, mirror):
        resized = reference.resized_crop(
            image,
            top,
            left,
            height,
            width,
            size=list(image.shape[1:]),
            interpolation=BILINEAR,
            antialias=True,
        )
        return reference.horizontal_flip(resized) if mirror else resized

    ours = crop.random_resized_crop(*move(device, images, *chosen, *([mirrored] if flips else [])))
    assert distance(ours, one_by_one(images, expected, *chosen, mirrored)) <= 1e-3


# Rotation


@pytest.mark.parametrize("degrees", [0.0, 5.0, 15.0, 90.0, 180.0])
def test_rotation_is_torchvisions_bilinear_rotation_with_black_corners(images, degrees, device):
    angle = (
        rotation.sample_rotation(len(images), degrees, generator(5)) if degrees else torch.zeros(len(images))
    )

    # fill=None is black. torchvision's fill=0 weights the outline by its own coverage a second time, on
    # tensors only.
    def expected(image, turned):
        return reference.rotate(image, turned, interpolation=BILINEAR, fill=None)

    assert (
        distance(rotation.rotate(*move(device, images, angle)), one_by_one(images, expected, angle)) <= 1e-2
    )


TIES = 1e-4
"""Share of the pixels that may be read from the neighbour: those that lie between two to within rounding."""


@pytest.mark.parametrize("degrees", [5.0, 15.0, 180.0])
@pytest.mark.parametrize("size", [(32, 32), (20, 33), (33, 20)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_nearest_rotation_is_torchvisions_but_for_ties(degrees, size, channels, device):
    images = noise((40, channels, *size))
    angle = rotation.sample_rotation(40, degrees, generator(5))
    ours = rotation.rotate(*move(device, images, angle), interpolation="nearest").cpu()
    theirs = one_by_one(
        images, lambda image, turned: reference.rotate(image, turned, interpolation=NEAREST, fill=0), angle
    )
    assert (ours != theirs).double().mean() <= TIES
    assert (ours == 0).any(), "corners are black"


@pytest.mark.parametrize("angle", [90.0, 180.0, -90.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_rotation_is_counter_clockwise(angle, interpolation):
    images = noise((2, 3, 16, 16))
    turned = rotation.rotate(images, torch.full((2,), angle), interpolation=interpolation)
    assert distance(turned, torch.rot90(images, round(angle / 90), (2, 3))) <= 1e-2


a, b, c = 0.2, 0.4, 0.7
PALETTE = [
    (0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1),  # greys
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1),  # pure colours
    (a, a, b), (a, b, a), (b, a, a), (b, b, a), (b, a, b), (a, b, b),  # ties
    *itertools.permutations((a, b, c)), (b, b + 1e-6, b), (0, 0, 1e-6), (1, 1 - 1e-6, 1),
]  # fmt: skip


def colourful(number, channels=3, size=(8, 9)):
    """Return noise: all images have the special pixels, some are of one colour, and one is half grey."""
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
    """Return each order of operations with extreme and with drawn factors: at least 64 rows of K."""
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
    expected = one_by_one(images, jittered, order, factors)
    rounds = color.rounds(order, factors, channels)
    in_groups = color.color_jitter(images.to(device), order, factors)
    for ours in (in_groups, color.color_jitter_in_rounds(images.to(device), *move(device, *rounds))):
        assert distance(ours, expected) <= 1e-2
        assert ours.min() >= 0
        assert ours.max() <= 1


def test_color_jitter_of_drawn_parameters_is_torchvisions(images, device):
    order, factors = color.sample_color_jitter(len(images), ALL, generator(3))
    assert (
        distance(
            color.color_jitter(images.to(device), order, factors),
            one_by_one(images, jittered, order, factors),
        )
        <= 1e-2
    )


@pytest.mark.parametrize("place", range(4))
def test_color_jitter_of_one_image_whose_hue_comes_first_second_third_or_last(place):
    order = torch.tensor([[*range(place), color.HUE, *range(place, 3)]])
    factors = torch.where(order == color.HUE, 0.2, 1.4)
    images = colourful(1)
    assert (
        distance(color.color_jitter(images, order, factors), one_by_one(images, jittered, order, factors))
        <= 1e-2
    )


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
    assert (
        distance(color.color_jitter(images, order, factors), one_by_one(before, jittered, order, factors))
        <= 1e-2
    )
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("jitter", "channels"), [(ColorJitter(), 3), (ColorJitter(hue=0.5), 1), (ColorJitter(saturation=1.0), 1)]
)
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
        "nothing": lambda: columns(
            [(3, 2, 0, 0), (0, 0, 0, 5), (0, 0, 5, 0), (size[0], size[1], 0, 0)], batch
        ),
    }[kind]()
    expected = one_by_one(images, lambda image, *box: reference.erase(image, *box, v=torch.zeros(1)), *chosen)
    assert torch.equal(erase.erase(*move(device, images, *chosen)).cpu(), expected)


def test_a_square_larger_than_the_image_covers_all_of_it():
    where = erase.sample_cutout(50, 1024, 20, 33, generator())
    assert torch.equal(erase.erase(noise((50, 1, 20, 33)), *where), torch.zeros(50, 1, 20, 33))


# Mixing


def with_partner(image, other, transform, params):
    """Mix one image with another by torchvision: (the image, its label's share).

    Its pairs are neighbours in the batch.
    """
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
    assert torch.equal(
        mix.mixup(images, partner, torch.full((7,), share)), images if share else images[partner]
    )


def test_cutmix_is_exactly_torchvisions_with_the_same_box(images, device):
    size = images.shape[2:]
    partner, top, left, high, wide, share = mix.sample_cutmix(len(images), 1.0, *size, generator(2))
    ours = mix.cutmix(*move(device, images, partner, top, left, high, wide)).cpu()
    for i, other in enumerate(partner.tolist()):
        x1, y1, x2, y2 = (int(side[i]) for side in (left, top, left + wide, top + high))
        lam = 1 - (x2 - x1) * (y2 - y1) / (size[0] * size[1])
        expected, label = with_partner(
            images[i], images[other], v2.CutMix(), {"box": (x1, y1, x2, y2), "lam_adjusted": lam}
        )
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


def test_with_both_ways_on_each_image_is_mixed_in_exactly_one_of_them(images, device):
    there = images.to(device)
    mixed = compose(BOTH, generators(3)).drawn(form(there)).mix(there)
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
    images = noise((DRAWS, 1, 4, 4))
    mixed = compose(BOTH, generators(3)).drawn(form(images)).mix(images)
    boxed = sum(
        round(16 * share) == 16 * share for share in mixed.share.tolist()
    )  # a whole number of pixels: a box
    assert a_share_of(boxed, DRAWS, 0.5)
