"""Whether the answers of a classifier depend on the classes at all, from its confusion matrix.

A run at chance level is one whose training has collapsed: it is counted as failed. Leaving out a run that has learnt something,
however little, would bias every mean that it belongs to. So a run is at chance level only if it gives one answer for all
images, or if neither of two tests finds that answers and classes depend on each other. Both keep the margins of the matrix
(how many images each class has, how often each answer was given), so that neither unbalanced classes nor a preferred answer
counts as knowledge or hides it:

- the balanced accuracy, the mean over classes of the share that was right (Brodersen et al. 2010, ICPR), against what
  answers dealt out at random have, 1/K. Its mean and variance over all ways to deal them out are exact, and its
  distribution tends to the normal one (Hoeffding 1951, "A combinatorial central limit theorem", Ann. Math. Stat. 22).
  Two-sided: answers that are wrong more often than chance would have them do depend on the class.
- Pearson's chi-squared test of independence, for answers that depend on the class while the balanced accuracy is at 1/K, such
  as those of a network two of whose three classes are swapped.

Where so few images are tested that balanced answers halfway between chance and perfect would pass for chance, neither test can say
anything, and only one answer for all images is at chance level.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

ALPHA = 0.05  # of both tests together
EACH = ALPHA / 2
CRITICAL = 2.2414  # of |z|, two-sided at EACH


def status(judged: Mapping[str, Any]) -> tuple[str, str]:
    """Return the status and the reason of an outcome.json, by its confusion matrix.

    Outcomes that earlier versions wrote carry the status of an older rule, which called runs chance that were not.
    """
    confusion = judged.get("confusion")
    if not confusion:
        return judged["status"], judged["reason"]
    reason = at_chance(confusion, judged["classes"])
    return ("at_chance", reason) if reason else ("finished", "")


def at_chance(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str | None:
    """Return why the answers do not depend on the class, else None. `confusion`: [true class][answer], counts of test images.

    Images of a single class cannot tell a network that always gives one answer from a perfect one: None.
    """
    images, answers = [sum(row) for row in confusion], [sum(column) for column in zip(*confusion, strict=True)]
    present, total = [k for k, count in enumerate(images) if count], sum(images)
    if len(present) < 2:
        return None
    accuracy = sum(confusion[k][k] for k in present) / total
    if max(answers) == total:
        only = classes[answers.index(total)]
        return f"at chance level: test accuracy {accuracy:.4f}, and all {total:,} test images got the same answer, {only}"
    expected, spread = _dealt_out(images, answers, present)
    if CRITICAL * _dealt_out(images, images, present)[1] > (1 - 1 / len(present)) / 2:
        return None
    balanced = sum(confusion[k][k] / images[k] for k in present) / len(present)
    if _two_sided(balanced - expected, spread) <= EACH or _independence(confusion, images, answers) <= EACH:
        return None
    return f"at chance level: test accuracy {accuracy:.4f}, mean over classes {balanced:.4f}, and answers at random have {expected:.4f}"


def _dealt_out(images: Sequence[int], answers: Sequence[int], present: Sequence[int]) -> tuple[float, float]:
    """Return mean and standard deviation of the balanced accuracy when the answers are dealt out to the images at random."""
    total, known = sum(images), len(present)
    given = [answers[k] for k in present]
    together = sum(given) ** 2 - sum(count * count for count in given)  # pairs of classes: their counts are correlated
    alone = sum(answers[k] / images[k] * (total - images[k]) * (total - answers[k]) for k in present)
    return sum(given) / (known * total), math.sqrt((alone + together) / (total - 1)) / (known * total)


def _two_sided(difference: float, spread: float) -> float:
    return math.erfc(abs(difference) / spread / math.sqrt(2)) if spread else 1.0


def _independence(confusion: Sequence[Sequence[int]], images: Sequence[int], answers: Sequence[int]) -> float:
    """Return p of Pearson's chi-squared test, times (N - 1)/N, its mean under independence; p by Wilson and Hilferty (1931)."""
    total = sum(images)
    shares = sum(count * count / (images[k] * answers[j]) for k, row in enumerate(confusion) for j, count in enumerate(row) if count)
    degrees = (sum(map(bool, images)) - 1) * (sum(map(bool, answers)) - 1)
    by_degree, noise = (total - 1) * (shares - 1) / degrees, 2 / (9 * degrees)
    return math.erfc((by_degree ** (1 / 3) - (1 - noise)) / math.sqrt(2 * noise)) / 2 if by_degree > 0 else 1.0
