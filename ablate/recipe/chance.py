"""Whether the answers of a classifier depend on the classes at all, from its confusion matrix.

A run at chance level is one whose training has collapsed, or has not begun to work: it is counted as failed.
Leaving out a run that has learnt something, however little, would bias every mean that it belongs to. So a
run is at chance level only if it gives one answer for all images, or if its balanced accuracy (the mean over
classes of the share that was right: Brodersen et al. 2010, ICPR) does not differ from that of answers dealt
out at random, 1/K. That test keeps the margins of the confusion matrix, how many images each class has and
how often each answer was given, so that neither unbalanced classes nor a preferred answer counts as knowledge
or hides it: mean and variance over all ways to deal the answers out are exact, and the distribution tends to
the normal one (Hoeffding 1951, "A combinatorial central limit theorem", Ann. Math. Stat. 22). It is
two-sided: answers that are wrong more often than chance would have it depend on the class, too.

Two exceptions, where that test says too little, leave one answer for all images as the only chance level:

- so few images that balanced answers halfway between chance and perfect would pass for chance;
- answers that tell the classes apart by other names, as those of a network two of whose three classes are
  swapped: the share of
  the strongest possible dependence, Cramer's V^2 without its bias (Bergsma 2013), is a quarter or more.

"""

import math
from collections.abc import Sequence
from typing import Literal

End = Literal["finished", "at_chance"]
CRITICAL = 1.96  # of |z|, two-sided at 0.05
STRONG = 0.25  # V^2 from which answers are a class's name, be it another one's


def status(
    written: End, reason: str, confusion: Sequence[Sequence[int]], classes: Sequence[str]
) -> tuple[End, str]:
    """Return the status of an evaluation and its reason, by its confusion matrix.

    As `written` where it has none.

    Evaluations that earlier versions wrote carry the status of an older rule, which called runs chance that
    were not.
    """
    if not confusion:
        return written, reason
    why = at_chance(confusion, classes)
    return ("at_chance", why) if why else ("finished", "")


def at_chance(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str | None:
    """Return why the answers do not depend on the class, else None.

    `confusion`: [true class][answer], counts of test images. Images of a single class cannot tell a network
    that always gives one answer from a perfect one: None.
    """
    images = [sum(row) for row in confusion]
    answers = [sum(column) for column in zip(*confusion, strict=True)]
    present, total = [k for k, count in enumerate(images) if count], sum(images)
    if len(present) < 2:
        return None
    accuracy = sum(confusion[k][k] for k in present) / total
    if max(answers) == total:
        only = classes[answers.index(total)] if classes else f"class {answers.index(total)}"
        return (
            f"at chance level: test accuracy {accuracy:.4f}, and all {total:,} test images got the same "
            f"answer, {only}"
        )
    expected, spread = _dealt_out(images, answers, present)
    if CRITICAL * _dealt_out(images, images, present)[1] > (1 - 1 / len(present)) / 2:
        return None
    balanced = sum(confusion[k][k] / images[k] for k in present) / len(present)
    if abs(balanced - expected) > CRITICAL * spread or _dependence(confusion, images, answers) >= STRONG:
        return None
    return (
        f"at chance level: test accuracy {accuracy:.4f}, mean over classes {balanced:.4f}, and answers "
        f"at random have {expected:.4f}"
    )


def _dealt_out(images: Sequence[int], answers: Sequence[int], present: Sequence[int]) -> tuple[float, float]:
    """Return mean and standard deviation of the balanced accuracy of answers dealt out at random."""
    total, classes = sum(images), len(present)
    counts = [answers[k] for k in present]
    # pairs of classes: their counts are correlated
    together = sum(counts) ** 2 - sum(count * count for count in counts)
    alone = sum(answers[k] / images[k] * (total - images[k]) * (total - answers[k]) for k in present)
    return sum(counts) / (classes * total), math.sqrt((alone + together) / (total - 1)) / (classes * total)


def _dependence(confusion: Sequence[Sequence[int]], images: Sequence[int], answers: Sequence[int]) -> float:
    """Return V^2 of answers and classes.

    1: each answer is for one class only and for all of it; around 0: answers are independent of classes.
    """
    squares = sum(
        count * count / (images[k] * answers[j])
        for k, row in enumerate(confusion)
        for j, count in enumerate(row)
        if count
    )
    classes, distinct = sum(map(bool, images)) - 1, sum(map(bool, answers)) - 1
    return (squares - 1 - classes * distinct / (sum(images) - 1)) / classes
