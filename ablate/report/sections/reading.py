"""How to read the report: what pairs, intervals and verdicts are."""

from markupsafe import Markup

from ablate.analysis.findings import Findings
from ablate.report import words
from ablate.report.section import Note, Section, Terms

SEED = (
    "A seed is one complete repetition of the study: it draws the initial weights, the validation split, the "
    "order of the images, every augmentation and dropout. In every cell the same seed makes the same draws, "
    "so two cells differ in nothing but their levels. Each effect is first computed inside a seed, from "
    "pairs of runs that differ in that one factor; {} The test images are the same for every seed."
)
SPREAD = {
    "own": "its spread over seeds is the only uncertainty used.",
    "pooled": "the uncertainty is the noise of all cells together.",
}
TOGETHER = (
    "The intervals of one table hold together, at {} ({}, for the number of effects in the table). If no "
    "effect of a table is real, the chance that one or more of them are said to help or to hurt is {}. "
    "Interval, p and verdict never disagree."
)
MARK = Markup('<span class="mark {0}">{0}</span>')
UNSTABLE = (
    "the share of failed runs is more than 10 percentage points higher than without the change; where they "
    "are, and what the surviving runs say, stands beside it."
)
TURNED = (
    "another factor reverses the sign of this effect: the table below the effects has it at each level of "
    "that factor."
)
INCOMPLETE = (
    "an effect is a mean over all settings of the other factors. The seeds that are named lack a run of it "
    "(crashed, failed or not run yet), and are left out. Excluded cells are not planned, and nothing lacks "
    "them."
)
CONDITIONAL = (
    "so many runs are missing that fewer than two seeds have all settings: the effect is that of the "
    "settings which its name says, and not of the whole factor."
)
INTERACTION = "an interaction: two changes do more than the sum of both, less, or just their sum."


def section(findings: Findings) -> Section:
    """Return the explanations that this report needs."""
    study, method = findings.study, words.method(findings)
    together = TOGETHER.format(f"{100 * (1 - study.alpha):g} %", method, f"{study.alpha:g}")
    notes = (Note(SEED.format(SPREAD[study.variance])), Note(together))
    return Section("reading", "How to read this", (*notes, Terms(_terms(findings))), {"method": method})


def _terms(findings: Findings) -> tuple[tuple[str | Markup, str | Markup], ...]:
    least, alpha = words.least(findings), f"{findings.study.alpha:g}"
    below = f"it is below {alpha} exactly"
    both = MARK.format("helps") + " / " + MARK.format("hurts")
    metric = f"({findings.metric}: {words.higher(findings)})"
    interaction = (
        (("better together, worse together, additive", INTERACTION),) if findings.interactions else ()
    )
    return (
        (both, f"the interval excludes 0, to the better or to the worse side {metric}."),
        (MARK.format("equivalent"), _equivalent(least)),
        (MARK.format("undecided"), _undecided(least)),
        (MARK.format("unstable"), UNSTABLE),
        ("depends on ...", TURNED),
        ("incomplete", INCOMPLETE),
        ("conditional", CONDITIONAL),
        (
            "p (adjusted)",
            f"p, adjusted for the number of effects in the table: {below} where the interval excludes 0.",
        ),
        *interaction,
    )


def _equivalent(least: str) -> str | Markup:
    small = "the whole interval is too small to be worth having"
    if least:
        return f"{small} (within {least} of 0)."
    return Markup("{}; it needs a <code>min_effect</code>, and this metric has none.").format(small)


def _undecided(least: str) -> str:
    last = f"; the last number would show one of {least}" if least else ""
    return (
        "neither: these runs cannot tell. The number of further seeds would show an effect as large as the "
        f"one seen with a chance of 80 %{last}. What stands in brackets allows for noise that is larger than "
        "it looked."
    )
