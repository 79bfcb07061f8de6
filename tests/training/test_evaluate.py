"""Judging a network: every number against scikit-learn or a plain loop, on networks whose answers are known."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics
from torch import nn

from ablate.recipe import Recipe
from ablate.training import evaluate, gallery, models, surgery
from ablate.training.evaluate import Wrong
from ablate.training.loop import Images

CLASSES = tuple("abcd")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(evaluation=None, **model):
    return Recipe.model_validate({
        "model": {"name": "cnn4"} | model, "training": {"precision": "fp32"}, "evaluation": evaluation or {}, "augment": {"crop": "none"},
    })  # fmt: skip


def images(count=300, classes=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 16, 16, 3), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=draw)
    one = torch.ones(1, 3, 1, 1)
    return Images(pixels, labels, 0.5 * one, 0.25 * one)


def network(**model):
    return models.build(make(**model).model, models.Shape(3, 16, 4), seed=1)


class Known(nn.Module):
    """Answers with given probabilities, one batch after the other."""

    def __init__(self, p):
        super().__init__()
        self.p, self.at = p, 0

    def forward(self, x):
        rows = self.p[self.at : self.at + len(x)]
        self.at += len(x)
        return rows.log()


def known(labels, seed=0):
    p = torch.rand(len(labels), 4, generator=torch.Generator().manual_seed(seed)) + 0.05
    p[torch.arange(len(labels)), labels] += 0.6
    return p / p.sum(1, keepdim=True)


def test_every_metric_is_that_of_scikit_learn():
    test = images()
    p, labels = known(test.labels), test.labels.numpy()
    found = evaluate.judge(Known(p), make(), 0, test, CLASSES)
    answers, exact = p.argmax(1).numpy(), p.double().numpy()
    assert found.metrics["test/accuracy"] == pytest.approx(metrics.accuracy_score(labels, answers), abs=1e-7)
    assert found.metrics["test/loss"] == pytest.approx(metrics.log_loss(labels, exact / exact.sum(1, keepdims=True)), abs=1e-5)
    assert found.confusion == metrics.confusion_matrix(labels, answers).tolist()
    recall = metrics.recall_score(labels, answers, average=None)
    assert [found.metrics[f"test/accuracy/{name}"] for name in CLASSES] == pytest.approx(recall.tolist(), abs=1e-6)
    assert found.at_chance is None


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy_over_fifteen_bins():
    test = images(500)
    p = known(test.labels, seed=3)
    confidence, right = p.max(1).values.numpy(), (p.argmax(1) == test.labels).numpy()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = evaluate.judge(Known(p), make(), 0, test, CLASSES)
    assert found.metrics["test/calibration_error"] == pytest.approx(expected, abs=1e-5)


def test_mc_dropout_is_the_mean_of_so_many_passes_with_batch_norm_at_rest():
    net, test, recipe = network(conv_dropout=0.3), images(40), make({"mc_dropout": 4}, conv_dropout=0.3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    p = evaluate.predict(net, recipe, 5, test)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())
    torch.manual_seed(evaluate.recipes.stream_seed(5, "mc_dropout"))
    net.eval()
    surgery.sample_dropout(net)
    with torch.inference_mode():
        expected = torch.stack([net(test.batch(slice(0, 40))).softmax(1) for _ in range(4)]).mean(0)
    assert torch.allclose(p, expected, atol=1e-6)
    net.eval()
    assert torch.equal(p, evaluate.predict(net, recipe, 5, test))
    assert not torch.equal(p, evaluate.predict(net, recipe, 6, test))
    assert not torch.allclose(p, evaluate.predict(net, make(conv_dropout=0.3), 5, test), atol=1e-3)


def test_mc_dropout_does_nothing_to_a_network_without_dropout():
    net, test = network(), images(20)
    assert torch.equal(evaluate.predict(net, make({"mc_dropout": 7}), 0, test), evaluate.predict(net, make(), 0, test))


def test_flip_averages_an_image_and_its_mirror_image():
    net, test = network(), images(30)
    net.eval()
    with torch.inference_mode():
        x = test.batch(slice(0, 30))
        expected = (net(x).softmax(1) + net(x.flip(-1)).softmax(1)) / 2
    p = evaluate.predict(net, make({"tta": "flip"}), 0, test)
    assert torch.allclose(p, expected, atol=1e-6)
    assert not torch.allclose(p, evaluate.predict(net, make(), 0, test), atol=1e-4)


def test_probabilities_are_whole_in_bf16_too():
    recipe = make()
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": "bf16"})})
    p = evaluate.predict(network(), recipe, 0, images(300))
    assert p.dtype == torch.float32
    assert torch.allclose(p.sum(1), torch.ones(300), atol=1e-5)


def test_one_answer_for_everything_is_chance_and_a_little_more_is_not():
    test = images(400)
    constant = torch.full((400, 4), 0.1)
    constant[:, 0] = 0.7
    share = (test.labels == 0).float().mean().item()
    found = evaluate.judge(Known(constant), make(), 0, test, CLASSES)
    assert found.at_chance.startswith(f"at chance level: test accuracy {share:.4f}, and naming the commonest class gives ")
    better = constant.clone()
    better[torch.arange(120), test.labels[:120]] = 0.8
    assert evaluate.judge(Known(better), make(), 0, test, CLASSES).at_chance is None


def test_a_class_without_test_images_has_no_accuracy_of_its_own():
    test = images(100, classes=3)
    found = evaluate.judge(Known(known(test.labels)), make(), 0, test, CLASSES)
    assert "test/accuracy/c" in found.metrics
    assert "test/accuracy/d" not in found.metrics
    assert all(np.isfinite(value) for value in found.metrics.values())


def test_wrong_answers_are_kept_the_most_confident_first():
    test = images(300)
    p = known(test.labels, seed=9)
    wrong = evaluate.judge(Known(p), make(), 0, test, CLASSES).wrong
    missed = (p.argmax(1) != test.labels).nonzero()[:, 0].tolist()
    expected = sorted(missed, key=lambda i: -p[i].max().item())[: evaluate.SHOWN]
    assert [one.index for one in wrong] == expected
    assert all(one.label == test.labels[one.index] and one.answer == p[one.index].argmax() != one.label for one in wrong)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "rows"), [(0, 1), (5, 1), (36, 6)])
def test_the_gallery_is_a_picture_of_every_wrong_answer(channels, count, rows):
    pixels = np.full((40, 16, 16, channels), 200, np.uint8)
    page = gallery.draw(tuple(Wrong(i, 0, 1, 0.9) for i in range(count)), pixels, ("a cat with a very long name indeed", "Häuser"))
    with Image.open(io.BytesIO(page)) as image:
        assert image.format == "PNG"
        assert image.size == (6 * 104 + 8, rows * 134 + 8)
        grey = sum(n for n, colour in image.convert("RGB").getcolors(1 << 20) if colour == (200, 200, 200))
    assert grey >= count * 96 * 96
