"""What a job sets in its process, whatever ran there before, and how much it evaluates at once."""

import warnings

import pytest
import torch
from sessions import CPU, EVERYTHING, make, outcome, start, train

from ablate.training import data, evaluate, loop, lr_finder, models


@pytest.fixture(autouse=True)
def _exact_again():
    """Leave torch exact: in one process tests follow one another as jobs do."""
    yield
    loop.settle(make(), CPU)


def tf32_everywhere():
    backends = torch.backends
    for part in (
        backends.cudnn, backends.mkldnn,
        backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.mkldnn.conv,
    ):  # fmt: skip
        part.fp32_precision = "none"  # what was set before in this process, as by an export, would win
    torch.backends.fp32_precision = "tf32"


def bf16_products():
    torch.set_float32_matmul_precision("medium")


def one_operation_apart():
    """After this torch itself has no answer to how exactly it multiplies."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.backends.cudnn.conv.fp32_precision = "tf32"


def exactness():
    backends = torch.backends
    return {
        backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision, backends.mkldnn.conv.fp32_precision,
    }  # fmt: skip


@pytest.mark.parametrize("blur", [tf32_everywhere, bf16_products, one_operation_apart])
def test_the_next_job_computes_exactly_whatever_a_users_network_has_set(blur):
    blur()
    assert exactness() & {"tf32", "bf16"}
    loop.settle(make(), CPU)
    assert exactness() == {"ieee"}
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)


def test_a_network_that_sets_something_as_it_is_built_trains_exactly(digits, monkeypatch):
    """Its module runs at the first job of a process only, so with its setting the second one would differ."""
    build = models.build

    def builds(*args, **kwargs):
        bf16_products()
        return build(*args, **kwargs)

    monkeypatch.setattr(models, "build", builds)
    start(make(), digits)
    assert exactness() == {"ieee"}


@pytest.mark.parametrize("blur", [bf16_products, tf32_everywhere, one_operation_apart])
def test_a_range_test_leaves_a_process_as_exact_as_it_was_or_exact_where_torch_has_no_answer(blur):
    blur()
    before = exactness()
    with lr_finder.undisturbed(CPU):
        loop.settle(make(), CPU)
        assert exactness() == {"ieee"}
    assert exactness() == (before if blur is bf16_products else {"ieee"})


@pytest.mark.parametrize(
    ("side", "images"),
    [(8, 1024), (28, 1024), (32, 1024), (64, 1024), (96, 455), (224, 83), (512, 16), (1024, 16)],
)
def test_large_images_are_evaluated_in_small_batches_on_a_gpu(side, images):
    assert loop.evaluation_batch(torch.device("cuda"), side) == images
    assert loop.evaluation_batch(CPU, side) == 128, "the numbers of every store stay what they are"


@pytest.mark.slow  # seconds
@pytest.mark.parametrize("name", ["cnn4", "resnet_small"])
def test_the_scores_of_large_images_do_not_depend_on_how_many_are_evaluated_at_once(
    name, tmp_path, monkeypatch
):
    """Validation chooses by them, and identities do not name the batch: only the last bits may differ."""
    recipe = make(data={"image_size": 96, "train_size": 150}, model={"name": name})
    session = start(recipe, data.prepare(recipe.data, tmp_path))
    assert (session.train.side, len(session.train)) == (96, 130)
    answers = {}
    for batch in (128, 83, 16):
        monkeypatch.setattr(loop, "evaluation_batch", lambda _device, _side, batch=batch: batch)
        answers[batch] = evaluate.predict(session.network, recipe, 0, session.train)
    for batch in (83, 16):
        torch.testing.assert_close(answers[batch], answers[128], rtol=1e-4, atol=1e-6)


def test_a_job_that_shares_its_device_gives_back_what_each_validation_has_taken(digits, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    for shares in (False, True):
        session = start(make(), digits)
        session.shares_device = shares
        epochs = sum(1 for _ in loop.epochs(session))
        assert len(emptied) == (epochs if shares else 0)


def test_no_new_tensor_is_filled_where_bits_must_repeat_and_the_bits_are_the_same(digits):
    def trained(*, filled):
        with lr_finder.undisturbed(CPU):
            loop.repeat_exactly(is_own=False)
            assert torch.utils.deterministic.fill_uninitialized_memory is False
            torch.utils.deterministic.fill_uninitialized_memory = filled
            assert bool(torch.empty(999).isnan().all()) is filled
            return outcome(train(make(**EVERYTHING), digits))

    assert trained(filled=False) == trained(filled=True) == outcome(train(make(**EVERYTHING), digits))


MAX = "adaptive_max_pool2d_backward_cuda does not have a deterministic implementation, but you set ..."
MEAN = MAX.replace("max", "avg")


@pytest.mark.parametrize(
    ("message", "is_own", "shown"), [(MAX, False, 0), (MAX, True, 1), (MEAN, False, 1), (MEAN, True, 1)]
)
def test_a_warning_that_is_wrong_of_our_networks_is_not_shown(message, is_own, shown):
    with lr_finder.undisturbed(CPU), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        loop.repeat_exactly(is_own=not is_own)  # the job before in this process
        loop.repeat_exactly(is_own=is_own)
        warnings.warn(message, stacklevel=1)
    assert len(heard) == shown


def test_a_range_test_leaves_determinism_and_warnings_as_they_were():
    def settings():
        deterministic = torch.are_deterministic_algorithms_enabled()
        return deterministic, torch.utils.deterministic.fill_uninitialized_memory, list(warnings.filters)

    before = settings()
    with lr_finder.undisturbed(CPU):
        loop.repeat_exactly(is_own=False)
        assert all(now != then for now, then in zip(settings(), before, strict=True))
    assert settings() == before
