"""The answers to claims, in words."""

from ablate.analysis.answers import ClaimFinding
from ablate.analysis.findings import Findings
from ablate.report import names, words

LEAST = "~ needs a min_effect, and only the study's own metric can have one"


def sentence(answer: ClaimFinding, findings: Findings) -> str:
    """Return the answer to a claim: '"It helps": confirmed, +3.10 points [2.80, 3.40] from false to true'."""
    claim, said, noted = answer.claim, numbers(answer, findings), "; ".join(notes(answer, findings))
    moved = f", {said} from {claim.second} to {claim.first}" if said else ""
    return f'"{claim.text}": {answer.verdict}{moved}' + (f" ({noted})" if noted else "")


def numbers(answer: ClaimFinding, findings: Findings) -> str:
    """Return the effect of a claim, named after its metric if that is not the report's.

    Empty where it was not tested.
    """
    said = "" if answer.estimate is None else words.difference(answer.estimate, answer.metric)
    return f"{answer.metric} {said}" if said and answer.metric != findings.metric else said


def notes(answer: ClaimFinding, findings: Findings) -> list[str]:
    """Return what belongs beside the numbers of a claim.

    Which direction is better, where they hold, what is missing, what failed.
    """
    effect, scope = answer.effect, names.where(answer.effect.scope, findings).removeprefix(", ")
    if answer.verdict == "not tested":
        return []
    known = answer.estimate is not None
    return [
        *(["lower is better"] if known and answer.direction == "min" else []),
        *(
            ["unstable: more runs fail with one of the two than with the other"]
            if effect.estimate.verdict == "unstable"
            else []
        ),
        *([f"known only {scope}, because runs failed or are missing"] if scope else []),
        *(
            []
            if known or answer.verdict != "undecided" or not effect.scattered
            else ["no setting has its pair of runs under every seed"]
        ),
        *([LEAST] if answer.is_unanswerable and answer.verdict == "undecided" else []),
        *(flag for flag in names.flags(effect) if known and flag.startswith("incomplete")),
    ]
