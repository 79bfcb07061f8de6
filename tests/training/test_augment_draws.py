"""What an augmentation draws has the distribution that torchvision's has."""

import itertools

import pytest
import torch
from augmented import ALL, DRAWS, LEVEL, SUBSETS, a_share_of, generator
from scipy import stats
from torchvision.transforms import v2

from ablate.recipe.fields import ColorJitter
from ablate.training.augment import color, crop, erase, mix, rotation

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
    """Whether two samples may be of one distribution, by chi-square or Kolmogorov-Smirnov.

    Whole numbers get chi-square: they are counted in at most 24 bins of about the same content. Others
    are rounded: theirs have 53 bits.
    """
    ours, theirs = (torch.as_tensor(x).double().round(decimals=6) for x in (ours, theirs))
    both = torch.cat([ours, theirs])
    if not torch.equal(both, both.round()):
        return stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > LEVEL
    edges = both.unique()
    if len(edges) == 1:
        return True
    if len(edges) > 24:
        edges = both.quantile(
            torch.linspace(0, 1, 25, dtype=torch.float64)[1:], interpolation="higher"
        ).unique()
    return (
        stats.chi2_contingency(torch.stack([table(x, edges) for x in (ours, theirs)]).numpy()).pvalue > LEVEL
    )


def equally_likely(values, possible):
    """Whether whole numbers may be uniform on the possible ones, and whether all of them are among these."""
    counts = torch.bincount(torch.as_tensor(values), minlength=possible)
    return len(counts) == possible and stats.chisquare(counts.numpy()).pvalue > LEVEL


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
    """Compare two samples of boxes (B,): sides, place, area, ratio, and place within the room left."""
    for one, other in zip(ours, theirs, strict=True):
        assert alike(one, other)
    derived = []
    for top, left, high, wide in ([part.double() for part in own] for own in (ours, theirs)):
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + high <= height).all()
        assert (left + wide <= width).all()
        room = torch.stack([top / (height - high + 1), left / (width - wide + 1)])
        derived.append(
            [
                high * wide,
                ((high + 0.5) / (wide + 0.5)).log(),
                *room,
                top * left,
                (room[0] - 0.5) * (room[1] - 0.5),
            ]
        )
    for one, other in zip(*derived, strict=True):
        assert alike(one, other)


def by_name(found, *names):
    return [torch.tensor([float(p[name]) for p in found]).double() for name in names]


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (20, 33), (16, 120)], ids=str
)  # the last: often the fallback
def test_random_resized_crop_draws_its_boxes_as_torchvision_does(height, width):
    ours = crop.sample_random_resized_crop(DRAWS, height, width, generator())
    theirs = by_name(
        torchvisions(v2.RandomResizedCrop(32), torch.zeros(3, height, width)),
        "top",
        "left",
        "height",
        "width",
    )
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


@pytest.mark.parametrize(
    "jitter",
    [ALL, ColorJitter(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)],
    ids=["usual", "widest"],
)
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
            assert alike(factors[:, place][order[:, place] == kind], ours), (
                "a factor knows nothing of its place"
            )
    drawn = torch.tensor([ORDERS[tuple(own)] for own in order.tolist()])
    assert equally_likely(drawn, 24)
    assert alike(drawn, [ORDERS[tuple(p["fn_idx"].tolist())] for p in theirs])


@pytest.mark.parametrize("kinds", SUBSETS, ids=lambda kinds: "".join("bcsh"[kind] for kind in kinds))
def test_color_jitter_draws_each_order_of_what_is_on_equally_often(kinds):
    names = list(ColorJitter.model_fields)
    order, factors = color.sample_color_jitter(
        DRAWS, ColorJitter(**{names[kind]: 0.3 for kind in kinds}), generator()
    )
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
    parts = [
        [i for i in range(centre - side // 2, centre - side // 2 + side) if 0 <= i < size]
        for centre in range(size)
    ]
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
    assert (
        stats.kstest(share.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > LEVEL or alpha < 0.1
    )  # rounded to 0 and 1
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
