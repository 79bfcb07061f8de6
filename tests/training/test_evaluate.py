"""The scores of a network are those of scikit-learn and plain loops, in every way of evaluating it."""

import dataclasses
import io
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score
from torch import nn

from ablate.recipe import identity, metrics
from ablate.recipe.fields import Recipe
from ablate.training import data, evaluate, gallery, loop, surgery
from ablate.training.evaluate import Shown
from ablate.training.images import for_test

CPU = torch.device("cpu")
CLASSES = tuple("abcd")


def make(evaluation=None, **training):
    return Recipe.model_validate(
        {
            "data": {"name": "digits", "image_size": 16, "train_size": 200, "validation": 0},
            "augment": {"crop": "none", "flip": False},
            "model": {"name": "cnn4", "conv_dropout": 0.1, "head_dropout": 0.3},
            "optimizer": {"lr": 0.05},
            "training": {"epochs": 5, "batch_size": 20, "precision": "fp32"} | training,
            "evaluation": evaluation or {},
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a small network on real digits: (network, test images, classes)."""
    torch.set_num_threads(1)
    prepared = data.prepare(make().data, tmp_path_factory.mktemp("cache"))
    arrays = data.open_arrays(prepared.folder)
    session = loop.start(make(), 0, prepared, arrays, CPU)
    for _ in loop.epochs(session):
        pass
    test = for_test(make(), prepared, arrays, CPU)
    return session.network, test, prepared.classes


def whole(images):
    (batch,) = images.batches(len(images))
    return batch.images


class Written(nn.Module):
    """A network whose answer is in the image: the logits are its first pixels, 0..255, times a scale."""

    def __init__(self, classes, scale=0.1):
        super().__init__()
        self.classes, self.scale = classes, scale

    def forward(self, x):
        return x.flatten(1)[:, : self.classes] * 255 * self.scale


def images(logits, labels):
    """Make images (16 x 16, grey) with logits written into them."""
    pixels = np.zeros((len(labels), 16, 16, 1), np.uint8)
    pixels[:, 0, : logits.shape[1], 0] = logits
    prepared = data.Prepared(Path(), "", CLASSES, len(labels), len(labels), 1, 16, (0.0,), (1.0,))
    labels = np.asarray(labels, np.int64)
    return for_test(make(), prepared, data.Arrays(pixels, labels, pixels, labels), CPU)


def judge_written(logits, labels, classes=CLASSES, scale=0.1):
    return evaluate.evaluate(
        Written(len(classes), scale), make(), 0, images(np.asarray(logits), labels), classes
    )


def random_case(seed, number=400, classes=4):
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, 60, (number, classes))
    noisy = logits + generator.integers(0, 40, logits.shape)
    return logits, noisy.argmax(1)


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64) - np.max(logits, 1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def calibration_error(p, labels, bins=15):
    """Guo et al. 2017, equation 3, image by image: bins (0, 1/15], (1/15, 2/15], ..."""
    held = [[] for _ in range(bins)]
    for row, label in zip(p, labels, strict=True):
        held[max(0, math.ceil(row.max() * bins) - 1)].append((row.max(), row.argmax() == label))
    return sum(
        abs(sum(right for _, right in part) - sum(confidence for confidence, _ in part)) for part in held
    ) / len(labels)


@pytest.mark.parametrize("seed", range(4))
def test_the_metrics_are_scikit_learns(seed):
    logits, labels = random_case(seed)
    p = softmax(logits * 0.1)
    found = judge_written(logits, labels)
    assert found.metrics["test/accuracy"] == accuracy_score(labels, p.argmax(1))
    assert found.metrics["test/loss"] == pytest.approx(log_loss(labels, p, labels=range(4)), rel=1e-5)
    assert found.confusion == confusion_matrix(labels, p.argmax(1), labels=range(4)).tolist()
    recalls = recall_score(labels, p.argmax(1), average=None, labels=range(4))
    assert [found.metrics[f"test/accuracy/{name}"] for name in CLASSES] == pytest.approx(
        recalls.tolist(), rel=1e-6
    )


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.3, 3.0])
def test_confusion_and_calibration_error_are_torchmetrics(scale):
    from torchmetrics.functional import classification  # late: it brings matplotlib to every worker

    logits, labels = random_case(5)
    found = judge_written(logits, labels, scale=scale)
    pair = torch.from_numpy(softmax(logits * scale)).float(), torch.from_numpy(labels)
    assert found.confusion == classification.multiclass_confusion_matrix(*pair, num_classes=4).tolist()
    assert found.metrics["test/calibration_error"] == pytest.approx(
        classification.multiclass_calibration_error(*pair, num_classes=4, n_bins=evaluate.BINS).item(),
        abs=1e-6,
    )


@pytest.mark.parametrize("scale", [0.01, 0.1, 0.3, 3.0])  # hardly sure of anything ... certain of everything
@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_a_plain_loop(seed, scale):
    logits, labels = random_case(seed)
    found = judge_written(logits, labels, scale=scale).metrics["test/calibration_error"]
    assert found == pytest.approx(calibration_error(softmax(logits * scale), labels), abs=1e-5)
    assert found > 0.005


def test_an_answer_of_full_confidence_lies_in_the_last_bin():
    # Half of the answers are right with confidence 0.95, half are wrong with 1.0: one bin, half right, 0.975
    # confident.
    sure, nearly = [250, 0, 0, 0], [40, 0, 0, 0]
    p = softmax(np.array([nearly]) * 0.1)[0].max()
    assert 14 / 15 < p < 1
    found = judge_written([sure] * 50 + [nearly] * 50, [1] * 50 + [0] * 50)
    assert found.metrics["test/calibration_error"] == pytest.approx((1 + p) / 2 - 0.5, abs=1e-5)


def test_every_metric_has_a_known_direction():
    found = judge_written(*random_case(0)).metrics
    assert set(found) == {
        "test/accuracy",
        "test/loss",
        "test/calibration_error",
        *(f"test/accuracy/{name}" for name in CLASSES),
    }
    assert all(metrics.direction(name) for name in found)


@pytest.mark.parametrize("evaluation", [{}, {"mc_dropout": 2, "tta": "flip"}], ids=str)
def test_the_images_that_were_trained_on_are_judged_as_the_others_are(trained, evaluation):
    network, test, classes = trained
    alone = evaluate.evaluate(network, make(evaluation), 0, test, classes).metrics
    seen = evaluate.evaluate(network, make(evaluation), 0, test, classes, trained_on=test).metrics
    assert seen == alone | {"fit/accuracy": alone["test/accuracy"], "fit/loss": alone["test/loss"]}
    assert metrics.with_derived(seen, ())["gap/accuracy"] == 0


def test_a_trained_network_is_judged_as_scikit_learn_judges_its_probabilities(trained):
    network, test, classes = trained
    found = evaluate.evaluate(network, make(), 0, test, classes)
    with torch.inference_mode():
        p = network.eval()(whole(test)).softmax(1).double().numpy()
    labels = test.labels.numpy()
    assert len(test) > 2 * loop.EVALUATION_BATCH["cpu"]
    assert found.metrics["test/accuracy"] == accuracy_score(labels, p.argmax(1)) > 0.6
    assert found.metrics["test/loss"] == pytest.approx(
        -np.log(p[np.arange(len(labels)), labels]).mean(), rel=1e-5
    )
    assert found.metrics["test/calibration_error"] == pytest.approx(calibration_error(p, labels), abs=1e-5)
    assert found.confusion == confusion_matrix(labels, p.argmax(1)).tolist()
    assert found.at_chance is None
    assert found == evaluate.evaluate(network, make(), 5, test, classes), "nothing is drawn"


@pytest.mark.parametrize("evaluation", [{}, {"mc_dropout": 3}, {"tta": "flip"}], ids=str)
def test_the_bins_of_a_trained_network_give_its_calibration_error(evaluation, trained):
    network, test, classes = trained
    found = evaluate.evaluate(network, make(evaluation), 0, test, classes)
    total = sum(count for count, _, _ in found.calibration)
    assert (len(found.calibration), total) == (evaluate.BINS, len(test))
    error = sum(count * abs(confidence - right) for count, confidence, right in found.calibration) / total
    assert error == pytest.approx(found.metrics["test/calibration_error"], abs=1e-4)
    assert sum(count * right for count, _, right in found.calibration) / total == pytest.approx(
        found.metrics["test/accuracy"], abs=1e-5
    )


def test_an_answer_that_is_impossible_to_the_network_costs_27_nats():
    found = judge_written([[250, 0, 0, 0]] * 2, [0, 1], scale=10.0)
    assert found.metrics["test/loss"] == pytest.approx(-math.log(1e-12) / 2, rel=1e-5)


def test_wrong_answers_are_listed_by_confidence_with_what_they_are_and_what_was_said():
    logits, labels = random_case(1)
    found = judge_written(logits, labels).wrong
    p = softmax(logits * 0.1)
    missed = np.flatnonzero(p.argmax(1) != labels)
    assert len(missed) > evaluate.SHOWN_WRONG == len(found) == 36
    assert all(
        (w.label, w.answer) == (labels[w.index], p[w.index].argmax()) and w.label != w.answer for w in found
    )
    assert [w.confidence for w in found] == pytest.approx(
        sorted(p[missed].max(1), reverse=True)[:36], abs=1e-4
    )
    few = judge_written(logits[:12], labels[:12]).wrong
    assert sorted(w.index for w in few) == np.flatnonzero(p[:12].argmax(1) != labels[:12]).tolist()


def test_some_right_answers_are_listed_class_by_class_in_turn():
    logits, labels = random_case(1)
    found = judge_written(logits, labels).right
    p = softmax(logits * 0.1)
    hits = np.flatnonzero(p.argmax(1) == labels)
    assert len(hits) > evaluate.SHOWN_RIGHT == len(found) == 18
    assert [shown.label for shown in found[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [shown.index for shown in found[:4]] == [hits[labels[hits] == k][0] for k in range(4)]
    assert all(shown.answer == shown.label == labels[shown.index] for shown in found)
    assert [shown.confidence for shown in found] == pytest.approx(
        [p[shown.index].max() for shown in found], abs=1e-4
    )


def test_a_class_without_test_images_has_no_accuracy_and_spoils_no_other():
    logits, labels = random_case(2)
    keep = labels != 2
    found = judge_written(logits[keep], labels[keep])
    assert "test/accuracy/c" not in found.metrics
    assert {f"test/accuracy/{name}" for name in "abd"} <= found.metrics.keys()
    assert all(math.isfinite(value) for value in found.metrics.values())
    assert found.confusion[2] == [0, 0, 0, 0]


def test_names_of_classes_may_have_spaces_and_umlauts():
    found = judge_written(*random_case(0), classes=("weiße Rose", "Ölbaum", "a/b", "梅"))
    assert "test/accuracy/weiße Rose" in found.metrics


@pytest.mark.parametrize(
    ("answers", "labels", "at_chance"),
    [
        ([0] * 100, [0, 1, 2, 3] * 25, True),  # always the same
        ([0] * 100, [0] * 70 + [1, 2, 3] * 10, True),  # the commonest
        ([0, 1, 2, 3] * 25, [0, 1, 2, 3] * 25, False),
        (
            [0, 1, 2, 3] * 9 + [0] * 64,
            [0, 1, 2, 3] * 25,
            False,
        ),  # seldom another answer, and then a right one
        (
            [0] * 25 + [1] * 25 + [2] * 25 + [3] * 25,
            [0, 1, 2, 3] * 25,
            True,
        ),  # every answer, whatever the class
        ([1, 2, 3, 0] * 25, [0, 1, 2, 3] * 25, False),  # always wrong: the answers depend on the class
    ],
)
def test_a_network_whose_answers_do_not_depend_on_the_class_is_at_chance(answers, labels, at_chance):
    found = judge_written(np.eye(4, dtype=int)[answers] * 50, labels)
    assert (found.at_chance is not None) is at_chance
    if at_chance:
        assert found.at_chance.startswith(
            f"at chance level: test accuracy {found.metrics['test/accuracy']:.4f}, "
        )


def test_a_constant_network_is_at_chance_on_real_images_and_so_is_a_broken_one(trained):
    _, test, classes = trained
    for weight in (0.0, math.nan):
        broken = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
        nn.init.constant_(broken[1].weight, weight)
        found = evaluate.evaluate(broken, make(), 0, test, classes)
        assert found.at_chance
        assert found.metrics["test/accuracy"] < 0.2


def by_hand(network, seed, test, passes, views=(lambda x: x,)):
    """Average the probabilities of some passes with dropout on and everything else in eval mode."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train(passes > 0)
    torch.manual_seed(identity.stream_seed(seed, "mc_dropout"))
    parts = []
    with torch.no_grad():
        for batch in test.batches(128):
            x = batch.images
            parts.append(
                sum(network(view(x)).softmax(1) for _ in range(max(passes, 1)) for view in views)
                / (max(passes, 1) * len(views))
            )
    network.eval()
    return torch.cat(parts)


def mirror(x):
    return x.flip(-1)


@pytest.mark.parametrize("passes", [1, 2, 7])
def test_mc_dropout_is_the_mean_of_so_many_softmax_passes(passes, trained):
    network, test, _ = trained
    p = evaluate.predict(network, make({"mc_dropout": passes}), 3, test)
    assert torch.allclose(p, by_hand(network, 3, test, passes), atol=1e-6)
    assert torch.allclose(p.sum(1), torch.ones(len(p)), atol=1e-5)
    assert (p.dtype, p.device, p.shape) == (torch.float32, CPU, (len(test), 10))


def test_mc_dropout_is_reproducible_and_differs_by_seed_from_one_pass_and_from_none(trained):
    network, test, _ = trained
    twice = []
    for seed in (1, 2):  # of the global generator
        torch.manual_seed(seed)
        twice.append(evaluate.predict(network, make({"mc_dropout": 5}), 3, test))
    assert torch.equal(*twice)
    for evaluation, seed in (({"mc_dropout": 5}, 4), ({"mc_dropout": 1}, 3), ({}, 3)):
        assert not torch.allclose(
            evaluate.predict(network, make(evaluation), seed, test), twice[0], atol=1e-3
        )


@pytest.mark.slow  # thousands of passes
def test_the_spread_of_mc_dropout_falls_with_the_root_of_the_number_of_passes(trained):
    network, test, _ = trained
    few = dataclasses.replace(test, rows=test.rows[:40], labels=test.labels[:40])
    far = evaluate.predict(network, make({"mc_dropout": 200}), 0, few)
    one, sixteen = (
        (evaluate.predict(network, make({"mc_dropout": t}), 1, few) - far).square().mean().sqrt()
        for t in (1, 16)
    )
    assert one / 6 < sixteen < one / 2.5


@pytest.mark.parametrize(
    "evaluation", [{}, {"mc_dropout": 2}, {"tta": "flip"}, {"mc_dropout": 2, "tta": "flip"}], ids=str
)
def test_judging_leaves_the_network_in_eval_mode_and_its_statistics_alone(evaluation, trained):
    network, test, classes = trained
    before = {name: part.clone() for name, part in network.state_dict().items()}
    network.train()
    evaluate.evaluate(network, make(evaluation), 0, test, classes)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(part, before[name]) for name, part in network.state_dict().items())


def test_flip_tta_is_the_mean_of_an_image_and_its_mirror_image(trained):
    network, test, _ = trained
    p = evaluate.predict(network, make({"tta": "flip"}), 0, test)
    with torch.inference_mode():
        x = whole(test)
        expected = (network(x).softmax(1) + network(mirror(x)).softmax(1)) / 2
    assert torch.allclose(p, expected, atol=1e-6)
    assert not torch.allclose(p, evaluate.predict(network, make(), 0, test), atol=1e-3)


def test_flip_logits_is_the_mean_of_what_is_said_before_the_softmax(trained):
    network, test, _ = trained
    p = evaluate.predict(network, make({"tta": "flip_logits"}), 0, test)
    with torch.inference_mode():
        x = whole(test)
        expected = ((network(x) + network(mirror(x))) / 2).softmax(1)
    assert torch.allclose(p, expected, atol=1e-6)
    assert not torch.allclose(p, evaluate.predict(network, make({"tta": "flip"}), 0, test), atol=1e-4)


def test_mc_dropout_and_flip_tta_together_average_all_passes_of_both_views(trained):
    network, test, _ = trained
    p = evaluate.predict(network, make({"mc_dropout": 3, "tta": "flip"}), 2, test)
    assert torch.allclose(p, by_hand(network, 2, test, 3, (lambda x: x, mirror)), atol=1e-6)


def test_mc_dropout_of_a_network_without_dropout_is_one_usual_pass(trained):
    _, test, _ = trained
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    recipe = make({"mc_dropout": 4})
    bare = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"conv_dropout": 0.0, "head_dropout": 0.0})}
    )
    assert torch.allclose(
        evaluate.predict(plain, bare, 0, test), evaluate.predict(plain, make(), 0, test), atol=1e-7
    )
    assert surgery.sample_dropout(plain) == 0


def test_a_network_trained_in_bf16_is_judged_in_bf16(trained):
    network, test, _ = trained
    p = evaluate.predict(network, make(precision="bf16"), 0, test)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = torch.cat([network(batch.images).float().softmax(1) for batch in test.batches(128)])
    assert p.dtype == torch.float32
    assert torch.equal(p, expected)


def test_an_evaluation_warns_of_nothing(trained):
    network, test, classes = trained
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate.evaluate(network, make(), 0, test, classes)
    assert not caught


def sheet(number, pixels, classes=("cat", "dog")):
    wrong = tuple(
        Shown(index=i % len(pixels), label=0, answer=1, confidence=1 - i / 100) for i in range(number)
    )
    drawn = gallery.draw(wrong, pixels, classes)
    assert drawn.startswith(b"\x89PNG\r\n")
    return Image.open(io.BytesIO(drawn))


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize(("number", "rows"), [(0, 1), (1, 1), (5, 1), (6, 1), (7, 2), (36, 6)])
def test_the_gallery_is_a_png_with_six_images_a_row(number, rows, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, channels), np.uint8)
    picture = sheet(number, pixels)
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert picture.size == (8 + 6 * 104, 8 + rows * 134)
    shown = np.asarray(picture)
    for i in range(number):
        left, top = 8 + i % 6 * 104, 8 + i // 6 * 134
        tile = pixels[i].repeat(3, 0).repeat(3, 1)  # 32 to 96 pixels
        assert np.array_equal(shown[top : top + 96, left : left + 96], np.broadcast_to(tile, (96, 96, 3))), i
        for line in (98, 111):  # what it is, and what was said
            assert (shown[top + line : top + line + 13, left : left + 96] != 255).any()
    if number < 6:
        assert (shown[8:104, 8 + number * 104 + 8 :] == 255).all() or number == 0, (
            "no image where there is none"
        )
    assert (shown != 255).any()


@pytest.mark.parametrize(
    "classes",
    [("weiße Rose", "Ölbaum"), ("梅", "🐈"), ("", "x" * 200)],
    ids=["umlauts", "other scripts", "long"],
)
def test_the_gallery_takes_any_name_of_a_class(classes):
    assert sheet(2, np.zeros((2, 16, 16, 1), np.uint8), classes).size == (632, 142)


@pytest.mark.parametrize(
    ("name", "end", "shown"),
    [
        ("true: cat", "", "true: cat"),
        ("cat", ", 97%", "cat, 97%"),
        ("automobile of someone", ", 97%", "automobile…, 97%"),
        ("weiße Rose", ", 5%", "weisse Rose, 5%"),
        ("Ölbäume", "", "Olbaume"),
    ],
)
def test_a_caption_of_the_gallery_keeps_its_blanks_and_its_end(name, end, shown):
    assert gallery.short(name, end) == shown
    assert len(shown) <= gallery.LETTERS


@pytest.mark.parametrize("name", ["gjpqy", "Wattle", "Ólafur", "梅"])
def test_a_caption_is_drawn_as_pillow_draws_it_at_once(name):
    shown = np.asarray(sheet(1, np.zeros((1, 16, 16, 1), np.uint8), ("cat", name)))
    page = Image.new("RGB", (632, 142), "white")
    pen = ImageDraw.Draw(page)
    pen.rectangle((8, 8, 103, 103), "black")
    pen.text((8, 106), "true: cat", "black")
    pen.text((8, 119), gallery.short(name, ", 100%"), gallery.WRONG)
    assert np.array_equal(shown, np.asarray(page))


@pytest.mark.parametrize("size", [16, 20, 96, 224])
def test_the_gallery_scales_images_of_any_size_to_its_tiles(size):
    picture = sheet(1, np.full((1, size, size, 3), 7, np.uint8))
    assert picture.size == (632, 142)
    assert (np.asarray(picture)[8:104, 8:104] == 7).all()
