"""Which confusion matrices are those of a network at chance level: real cases, scipy and permutations."""

import numpy as np
import pytest
from scipy import stats

from ablate.recipe import chance

CLASSES = [f"class {i}" for i in range(100)]


def matrix(labels, answers, classes):
    found = np.zeros((classes, classes), int)
    np.add.at(found, (np.asarray(labels), np.asarray(answers)), 1)
    return found.tolist()


def diagonal(*images):
    return np.diag(images).tolist()


@pytest.mark.parametrize(
    "confusion",
    [
        diagonal(45, 5),
        [[950, 0], [30, 20]],  # 0.970 of 1,000, 95 % of one class
        [[949, 1], [40, 10]],
        *(
            diagonal(n, n) for n in (1, 2, 3, 4, 5, 7, 10)
        ),  # of 2 to 20 images: few of them could show anything by a test
        diagonal(19, 1),
        diagonal(3, 1),
        diagonal(*[1] * 10),
        [[6, 2], [2, 6]],  # too few to tell 0.75 from a guess
        [[4, 4], [4, 4]],
        [[0, 50], [50, 0]],  # always wrong
        [[50, 0, 0], [0, 0, 50], [0, 50, 0]],  # balanced accuracy 1/3, two classes swapped
        [[40, 5, 0], [3, 42, 0], [0, 0, 0]],  # a class without test images
        [[30, 0, 15], [0, 15, 30], [0, 0, 0]],  # and it is often answered
        diagonal(50, 0),  # images of one class: a constant answer and knowledge are the same
        [[20, 30], [0, 0]],
    ],
    ids=str,
)
def test_answers_that_depend_on_the_class_or_cannot_be_told_are_not_at_chance(confusion):
    assert chance.at_chance(confusion, CLASSES) is None


@pytest.mark.parametrize(
    "confusion",
    [[[45, 0], [5, 0]], [[0, 950], [0, 50]], [[1, 0], [1, 0]], [[0, 9, 0], [0, 9, 0], [0, 9, 0]]],
    ids=str,
)
def test_one_answer_for_every_image_is_at_chance_however_few_there_are(confusion):
    only = next(j for j in range(len(confusion)) if any(row[j] for row in confusion))
    images, right = sum(map(sum, confusion)), confusion[only][only]
    said = (
        f"at chance level: test accuracy {right / images:.4f}, and all {images:,} test images got the "
        f"same answer, class {only}"
    )
    assert chance.at_chance(confusion, CLASSES) == said


def test_answers_that_do_not_depend_on_the_class_are_at_chance_and_say_what_chance_is():
    said = chance.at_chance([[27, 27, 26], [27, 27, 26], [26, 26, 28]], CLASSES)
    assert (
        said == "at chance level: test accuracy 0.3417, mean over classes 0.3417, and answers at random have "
        "0.3333"
    )
    assert chance.at_chance([[900, 50], [47, 3]], CLASSES).startswith(
        "at chance level: test accuracy 0.9030, mean over classes 0.5037"
    )


def test_a_network_slightly_better_than_chance_is_seen_on_ten_thousand_images():
    labels, rng = np.repeat(np.arange(10), 1000), np.random.default_rng(0)
    for _ in range(20):
        knows = rng.random(10_000) < 0.025  # accuracy 0.1225
        answers = np.where(knows, labels, rng.integers(0, 10, 10_000))
        assert chance.at_chance(matrix(labels, answers, 10), CLASSES) is None


@pytest.mark.parametrize(
    ("classes", "images", "first"),
    [(2, 50, 0.5), (2, 500, 0.95), (3, 80, 0.33), (10, 20, 0.1), (10, 100, 0.9), (100, 10, 0.5)],
)
def test_random_answers_are_taken_for_knowledge_in_about_five_of_a_hundred_runs(classes, images, first):
    rng = np.random.default_rng(1)
    labels, share = (
        np.repeat(np.arange(classes), images),
        [first, *[(1 - first) / (classes - 1)] * (classes - 1)],
    )
    drawn = (rng.choice(classes, len(labels), p=share) for _ in range(400))
    kept = sum(chance.at_chance(matrix(labels, answers, classes), CLASSES) is None for answers in drawn)
    assert kept <= stats.binom.isf(0.001, 400, 0.075)


def test_mean_and_spread_of_dealt_out_answers_are_those_of_permutations():
    labels, answers = (np.repeat(np.arange(4), counts) for counts in ([5, 20, 3, 40], [30, 8, 2, 28]))
    rng = np.random.default_rng(2)
    shuffled = (rng.permutation(answers) for _ in range(20_000))
    balanced = [np.mean([(one[labels == k] == k).mean() for k in range(4)]) for one in shuffled]
    mean, spread = chance._dealt_out([5, 20, 3, 40], [30, 8, 2, 28], range(4))
    assert mean == pytest.approx(np.mean(balanced), abs=5 * spread / 20_000**0.5)
    assert spread == pytest.approx(np.std(balanced), rel=0.03)


def test_of_two_classes_the_spread_is_that_of_the_hypergeometric_distribution():
    mean, spread = chance._dealt_out([45, 5], [40, 10], range(2))
    known = stats.hypergeom(50, 45, 40)  # images of the first class among those that got its answer
    assert mean == pytest.approx(0.5)
    assert spread == pytest.approx(known.std() * (1 / 45 + 1 / 5) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_dependence_is_that_of_the_chi_squared_statistic_of_scipy_without_its_mean(seed):
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 12, (5, 5)) + 3 * np.eye(5, dtype=int)
    statistic, _, degrees, _ = stats.chi2_contingency(found, correction=False)
    total = found.sum()
    dependence = chance._dependence(found.tolist(), found.sum(1).tolist(), found.sum(0).tolist())
    assert dependence == pytest.approx((statistic / total - degrees / (total - 1)) / 4)


def test_an_untrained_network_that_prefers_some_answers_for_some_classes_is_at_chance():
    confusion = [[24, 12, 0], [24, 12, 0], [36, 0, 0]]  # accuracy 1/3
    assert stats.chi2_contingency(np.array(confusion)[:, :2]).pvalue < 0.001
    assert chance.at_chance(confusion, CLASSES)
    assert chance.at_chance([[30, 6, 0], [18, 18, 0], [24, 12, 0]], CLASSES) is None  # accuracy 0.44


def test_an_outcome_of_an_earlier_version_is_read_by_its_confusion_matrix():
    reason, classes = "at chance level: test accuracy 1.0000, ...", ["a", "b"]
    assert chance.status("at_chance", reason, diagonal(45, 5), classes) == ("finished", "")
    assert chance.status("finished", "", [[45, 0], [5, 0]], classes)[0] == "at_chance"
    assert chance.status("at_chance", reason, [], classes) == ("at_chance", reason)
