"""Each augmentation draws from a stream of its own, and together they keep their order."""

import itertools

import pytest
import torch
from augmented import ALL, BOTH, SHAPES, form, generator, noise, stored

from ablate.recipe import identity
from ablate.recipe.fields import Augment
from ablate.training.augment import PLAIN, color, compose, crop, erase, rotation
from ablate.training.augment.streams import ROLES, Form, generators

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
    crop="random_resized_crop",
    flip=True,
    rotation=15.0,
    color_jitter=ALL,
    erasing=0.5,
    cutout=4,
    mixup=1.0,
    cutmix=1.0,
)


def batch_of(augmentation, *, images=6, channels=3, size=(8, 9)):
    """Read and augment one batch: (the images, the share of each that is its own)."""
    pixels = torch.randint(0, 256, (20, *size, channels), generator=generator(2), dtype=torch.uint8)
    augmentation = augmentation.drawn(Form(images, channels, *size, pixels.device))
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
    assert fresh == {role: bytes(stream.get_state().tolist()) for role, stream in generators(5).items()}, (
        "off draws nothing"
    )
    alone = {}
    for role, levels in CHOICES.items():
        for level in levels:
            found = states(Augment(**OFF | level))
            assert {other for other in ROLES if found[other] != fresh[other]} == {role}, (
                "it draws from its own stream only"
            )
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
    other = Augment(
        padding=2, padding_mode="reflect", rotation=40.0, interpolation="nearest", erasing=0.1, mixup=0.2
    )
    assert states(usual) == states(other)


def test_each_role_and_each_seed_has_a_generator_of_its_own():
    found = [tuple(stream.get_state().tolist()) for seed in range(3) for stream in generators(seed).values()]
    assert len(set(found)) == len(found) == 3 * len(ROLES)
    assert (
        generators(5)["crop"].initial_seed()
        == torch.Generator().manual_seed(identity.stream_seed(5, "crop")).initial_seed()
    )


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
    applied = augmentation.drawn(Form(7, 3, 32, 32, pixels.device))
    assert torch.equal(applied.read(pixels, which), expected)
    assert augmentation.steps == ()
    assert augmentation.mix is None


def test_everything_together_is_crop_rotation_color_jitter_erasing_cutout_then_mixing():
    images, streams, size = noise((6, 3, 8, 9)), generators(5), (8, 9)
    augmentation = compose(EVERYTHING, generators(5))
    assert augmentation.read is crop.take
    x, applied = images, augmentation.drawn(form(images))
    for step in (*applied.steps, *applied.erasures):
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
    turning = Augment(**OFF, rotation=15.0, interpolation=interpolation)
    (step,) = compose(turning, generators(5)).drawn(form(images)).steps
    angle = rotation.sample_rotation(6, 15.0, generators(5)["rotation"])
    assert torch.equal(step(images), rotation.rotate(images, angle, interpolation=interpolation))


@pytest.mark.parametrize("role", ["random_crop", *CHOICES, "everything"])
def test_shape_type_and_range_are_kept_and_the_input_is_left_alone(images, role, device):
    level = {"random_crop": CHOICES["crop"][0], "crop": CHOICES["crop"][1]}.get(role) or CHOICES.get(
        role, ({},)
    )[0]
    augmentation = compose(EVERYTHING if role == "everything" else Augment(**OFF | level), generators(2))
    before, x = images.clone(), images.to(device)
    augmentation = augmentation.drawn(form(x))
    for step in (*augmentation.steps, *augmentation.erasures):
        x = step(x)
    x = x if augmentation.mix is None else augmentation.mix(x).images
    assert (x.shape, x.dtype, x.device.type) == (before.shape, before.dtype, device.type)
    assert x.min() >= 0
    assert x.max() <= 1 + 1e-6  # a weighted mean may round upwards
    assert torch.equal(images, before)
