"""Augmentations of whole batches agree with torchvision's of single images, and draw from streams of their own."""

import itertools
import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from ablate import recipe
from ablate.recipe import Augment
from ablate.training import augment

SHAPES = [(7, 3, 32, 32), (7, 1, 20, 33), (1, 3, 33, 20), (1, 1, 16, 16), (7, 3, 48, 48)]
BILINEAR = v2.InterpolationMode.BILINEAR


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def memory_format(request):
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def images(request, memory_format):
    return noise(request.param).contiguous(memory_format=memory_format)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(shape):
    """White noise: the image that forgives a misplaced pixel least."""
    return torch.rand(shape, generator=generator(1))


def one_by_one(images, transform, *parameters):
    """Apply a transform of one image to each of them with its own parameters."""
    return torch.stack([transform(image, *(p.item() for p in own)) for image, *own in zip(images, *parameters, strict=True)])


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize(("mode", "torchvision_mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_random_crop_is_exactly_torchvisions_padding_and_crop(images, mode, torchvision_mode, padding):
    height, width = images.shape[2:]

    def expected(image, top, left):
        padded = reference.pad(image, [padding] * 4, padding_mode=torchvision_mode)
        return reference.crop(padded, top, left, height, width)

    for top, left in (
        augment.sample_random_crop(len(images), padding, generator()),
        (torch.zeros(len(images)).long(), torch.full((len(images),), 2 * padding)),  # the outermost corner
    ):
        assert torch.equal(augment.random_crop(images, top, left, padding=padding, mode=mode), one_by_one(images, expected, top, left))


def test_flip_is_exactly_torchvisions_flip_of_the_chosen_images(images):
    mirrored = augment.sample_flip(len(images), generator(3))
    expected = one_by_one(images, lambda image, chosen: reference.horizontal_flip(image) if chosen else image, mirrored)
    assert torch.equal(augment.flip(images, mirrored), expected)
    assert torch.equal(augment.flip(images, torch.ones(len(images), dtype=torch.bool)), reference.horizontal_flip(images))


def boxes(height, width, number):
    """Give fixed boxes: the whole image, a single pixel, a row, a column, and small ones at each corner; then drawn ones."""
    fixed = [
        (0, 0, height, width), (height - 1, width - 1, 1, 1), (2, 0, 1, width), (0, 5, height, 1),
        (0, 0, 5, 7), (height - 5, width - 7, 5, 7), (3, 2, height - 3, width - 4),
    ]  # fmt: skip
    drawn = zip(*augment.sample_random_resized_crop(20, height, width, generator(4)), strict=True)
    chosen = [*fixed, *(tuple(int(x) for x in box) for box in drawn)]
    return [torch.tensor(column) for column in zip(*(chosen * number)[:number], strict=True)]


@pytest.mark.parametrize("shape", [(27, *shape[1:]) for shape in SHAPES] + [(1, 3, 48, 48)], ids=str)
def test_random_resized_crop_is_torchvisions_antialiased_bilinear_resize_of_the_box(shape, memory_format):
    images = noise(shape).contiguous(memory_format=memory_format)
    size = list(shape[2:])
    chosen = boxes(*size, shape[0])

    def expected(image, *box):
        return reference.resized_crop(image, *box, size=size, interpolation=BILINEAR, antialias=True)

    difference = augment.random_resized_crop(images, *chosen) - one_by_one(images, expected, *chosen)
    assert difference.abs().max() <= 1e-3 / 255


@pytest.mark.parametrize("degrees", [0.0, 5.0, 15.0, 90.0, 180.0])
def test_rotation_is_torchvisions_bilinear_rotation_with_black_corners(images, degrees):
    angle = augment.sample_rotation(len(images), degrees, generator(5)) if degrees else torch.zeros(len(images))

    # fill=None is black. torchvision's fill=0 weights the outline by its own coverage a second time, on tensors only.
    def expected(image, turned):
        return reference.rotate(image, turned, interpolation=BILINEAR, fill=None)

    difference = augment.rotate(images, angle) - one_by_one(images, expected, angle)
    assert difference.abs().max() <= 1e-2 / 255


@pytest.mark.parametrize("angle", [90.0, 180.0, -90.0])
def test_rotation_is_counter_clockwise(angle):
    images = noise((2, 3, 16, 16))
    turned = augment.rotate(images, torch.full((2,), angle))
    assert (turned - torch.rot90(images, round(angle / 90), (2, 3))).abs().max() <= 1e-2 / 255


DRAWS = 4000
SAMPLERS = {
    "random_crop": lambda batch, g: torch.stack(augment.sample_random_crop(batch, 4, g)),
    "random_resized_crop": lambda batch, g: torch.stack(augment.sample_random_resized_crop(batch, 32, 32, g)),
    "flip": augment.sample_flip,
    "rotation": lambda batch, g: augment.sample_rotation(batch, 15.0, g),
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


def torchvisions(transform, image):
    """Draw parameters by torchvision's own sampler, for as many images one by one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return [transform.make_params([image]) for _ in range(DRAWS)]


def alike(ours, theirs):
    """Say whether two samples have the same mean and spread, to within five standard errors."""
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, theirs))
    sd = theirs.std()
    fourth = ((theirs - theirs.mean()) ** 4).mean()
    error_of_variance = ((fourth - sd**4) * 2 / DRAWS).clamp_min(0).sqrt()
    means = (ours.mean() - theirs.mean()).abs() <= 5 * sd * (2 / DRAWS) ** 0.5 + 1e-9
    spreads = (ours.var() - theirs.var()).abs() <= 5 * error_of_variance + 1e-9
    return bool(means and spreads)


def test_alike_tells_samples_apart():
    drawn = torch.rand(DRAWS, generator=generator())
    other = torch.rand(DRAWS, generator=generator(1))
    assert alike(drawn, other)
    assert not alike(drawn + 0.04, other)
    assert not alike((drawn - 0.5) * 1.08, other - 0.5)


@pytest.mark.parametrize("padding", [1, 4])
def test_random_crop_draws_its_place_as_torchvision_does(padding):
    top, left = augment.sample_random_crop(DRAWS, padding, generator())
    theirs = torchvisions(v2.RandomCrop(32), torch.zeros(3, 32 + 2 * padding, 32 + 2 * padding))
    for ours, name in ((top, "top"), (left, "left")):
        assert alike(ours, [p[name] for p in theirs])
        assert ours.unique().tolist() == list(range(2 * padding + 1))
    assert abs(torch.corrcoef(torch.stack([top, left]).double())[0, 1]) < 5 / DRAWS**0.5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33), (33, 20), (16, 120)], ids=str)  # the last: often the fallback
def test_random_resized_crop_draws_its_boxes_as_torchvision_does(height, width):
    top, left, high, wide = augment.sample_random_resized_crop(DRAWS, height, width, generator())
    theirs = torchvisions(v2.RandomResizedCrop(32), torch.zeros(3, height, width))
    found = {name: torch.tensor([p[name] for p in theirs]) for name in ("top", "left", "height", "width")}
    for ours, name in ((top, "top"), (left, "left"), (high, "height"), (wide, "width")):
        assert alike(ours, found[name]), name
    assert alike(high * wide / (height * width), found["height"] * found["width"] / (height * width))
    assert alike((wide / high).log(), (found["width"] / found["height"]).log())
    assert alike(top * left, found["top"] * found["left"])
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (high >= 1).all()
    assert (wide >= 1).all()
    assert (top + high <= height).all()
    assert (left + wide <= width).all()
    assert (top == 0).any()
    assert (top + high == height).any()


@pytest.mark.parametrize(("height", "width"), [(16, 400), (400, 16), (16, 300)], ids=str)
def test_random_resized_crop_falls_back_to_the_largest_centred_box_as_torchvision_does(height, width):
    drawn = torch.stack(augment.sample_random_resized_crop(20, height, width, generator()))
    p = v2.RandomResizedCrop(32).make_params([torch.zeros(3, height, width)])
    expected = torch.tensor([p["top"], p["left"], p["height"], p["width"]])
    assert torch.equal(drawn, expected[:, None].expand(4, 20))


def test_rotation_draws_its_angle_as_torchvision_does():
    ours = augment.sample_rotation(DRAWS, 15.0, generator())
    assert alike(ours, [p["angle"] for p in torchvisions(v2.RandomRotation(15), torch.zeros(3, 32, 32))])
    assert -15 <= ours.min() < -14.9
    assert 14.9 < ours.max() <= 15


def test_every_other_image_is_flipped():
    share = augment.sample_flip(DRAWS, generator()).double().mean()
    assert abs(share - 0.5) < 5 * 0.5 / DRAWS**0.5


CHOICES = {
    "crop": ["none", "random_crop", "random_resized_crop"],
    "flip": [False, True],
    "rotation": [0.0, 15.0],
}
ALONE = {"crop": "none", "flip": False, "rotation": 0.0}
COMBINATIONS = [dict(zip(CHOICES, levels, strict=True)) for levels in itertools.product(*CHOICES.values())]


def augmented(choice, batches=3):
    """Augment some batches: (the images, the state of every generator afterwards)."""
    streams = augment.generators(5)
    steps = augment.compose(Augment(**choice), streams)
    images = []
    for _ in range(batches):
        x = noise((6, 3, 32, 32))
        for step in steps:
            x = step(x)
        images.append(x)
    return torch.stack(images), {role: stream.get_state() for role, stream in streams.items()}


def test_the_choices_of_this_file_are_all_roles_there_are():
    assert set(CHOICES) == set(augment.STEPS)


@pytest.mark.parametrize("choice", COMBINATIONS, ids=lambda choice: "-".join(map(str, choice.values())))
def test_what_one_augmentation_draws_never_depends_on_the_others(choice):
    _, states = augmented(choice)
    for role in CHOICES:
        _, alone = augmented(ALONE | {role: choice[role]})
        assert torch.equal(states[role], alone[role]), role


def test_an_augmentation_that_is_off_draws_nothing_and_one_that_is_on_draws():
    fresh = {role: torch.Generator().manual_seed(recipe.stream_seed(5, role)).get_state() for role in augment.STEPS}
    for choice in COMBINATIONS:
        _, states = augmented(choice)
        for role in augment.STEPS:
            assert torch.equal(states[role], fresh[role]) is (choice[role] == ALONE[role]), (choice, role)


def test_rotation_is_put_on_top_of_the_very_same_crops_and_flips():
    without, _ = augmented({"crop": "random_crop", "flip": True, "rotation": 0.0})
    together, _ = augmented({"crop": "random_crop", "flip": True, "rotation": 15.0})
    stream = augment.generators(5)["rotation"]
    expected = torch.stack([augment.rotate(x, augment.sample_rotation(len(x), 15.0, stream)) for x in without])
    assert torch.equal(together, expected)


def test_the_order_is_crop_flip_rotation():
    assert list(augment.STEPS) == ["crop", "flip", "rotation"]
    together, _ = augmented({"crop": "random_crop", "flip": True, "rotation": 0.0}, batches=1)
    streams, x = augment.generators(5), noise((6, 3, 32, 32))
    x = augment.random_crop(x, *augment.sample_random_crop(6, 4, streams["crop"]), padding=4)
    assert torch.equal(together[0], augment.flip(x, augment.sample_flip(6, streams["flip"])))


def test_each_role_and_each_seed_has_a_generator_of_its_own():
    states = [tuple(stream.get_state().tolist()) for seed in range(3) for stream in augment.generators(seed).values()]
    assert len(set(states)) == len(states) == 3 * len(augment.STEPS)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_the_padding_of_the_recipe_is_the_padding_of_the_crop(padding_mode):
    streams = augment.generators(5)
    (step,) = augment.compose(Augment(crop="random_crop", padding=3, padding_mode=padding_mode, flip=False), streams)
    x = noise((6, 3, 32, 32))
    place = augment.sample_random_crop(6, 3, augment.generators(5)["crop"])
    assert torch.equal(step(x), augment.random_crop(x, *place, padding=3, mode=padding_mode))


@pytest.mark.parametrize("choice", COMBINATIONS, ids=lambda choice: "-".join(map(str, choice.values())))
def test_shape_type_and_range_are_kept_and_the_input_is_left_alone(images, choice):
    before = images.clone()
    x = images
    for step in augment.compose(Augment(**choice), augment.generators(2)):
        x = step(x)
    assert (x.shape, x.dtype) == (before.shape, before.dtype)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6  # a weighted mean may round upwards
    assert math.isfinite(x.sum())
    assert torch.equal(images, before)
    if len(images) > 1:
        assert torch.equal(x, images) is (choice == ALONE)
