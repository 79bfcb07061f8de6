"""Findings to plain data for other programs: strictly valid JSON, whose keys others rely on (DESIGN.md, section 9)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ablate.analysis.answers import ClaimFinding
from ablate.analysis.effects import Effect
from ablate.analysis.findings import CellFinding, Findings
from ablate.analysis.outcomes import NAMES
from ablate.analysis.tuning import TuningFinding
from ablate.recipe import identity, metrics
from ablate.report import claims, names, words
from ablate.store.files import Json


def to_json(findings: Findings) -> Json:
    """Lay everything out as JSON has it: null for what is not known or not a number, seeds as text where they are keys."""
    study = findings.study
    everything = {
        "study": study.name,
        "question": study.question,
        "design": study.design,
        "metric": findings.metric,
        "direction": findings.direction,
        "min_effect": study.min_effect if findings.metric == study.metric else None,
        "alpha": study.alpha,
        "variance": study.variance,
        "seeds": list(study.seeds),
        "finished": findings.finished,
        "total": findings.total,
        "headline": words.headline(findings),
        "test_images": asdict(findings.images) if findings.images else None,
        "networks": [asdict(network) for network in findings.networks],
        "cells": [_cell(cell) for cell in findings.cells],
        "effects": [
            _effect(effect, findings)
            for kind in (findings.effects, findings.simple_effects, findings.interactions, findings.cell_effects)
            for effect in kind
        ],
        "classes": [{"class": one.name} | _effect(one.effect, _on_class(findings, one.name)) for one in findings.class_effects],
        "inside": [
            {"cell": d.label, "classes": d.classes, "confusion": d.confusion, "calibration": d.calibration} for d in findings.details
        ],
        "claims": [_claim(claim, findings) for claim in findings.claims],
        "curves": [
            {"cell": c.label, "metric": c.metric, "epochs": c.epochs, "mean": c.mean, "low": c.low, "high": c.high} for c in findings.curves
        ],
        "tuning": _tuning(findings.tuning, findings),
        "failures": [{"run": f.run, "status": f.status, "reason": f.reason, "log": f.log} for f in findings.failures],
        "excluded": [{"why": exclusion.why, "cells": list(exclusion.labels)} for exclusion in findings.excluded],
        "data": list(findings.data),
        "environments": [_without_diff(environment) for environment in findings.environments],
    }
    plain: Json = _plain(everything)
    return plain


def _on_class(findings: Findings, name: str) -> Findings:
    return replace(findings, metric=metrics.PER_CLASS + name)  # for the words: points, whatever the metric of the report


def _without_diff(environment: dict[str, Any]) -> Json:
    """Leave out the text of uncommitted changes: up to 200 kB that stand in the run's artifacts."""
    return environment | {"git": {name: value for name, value in environment.get("git", {}).items() if name != "diff"}}


def _cell(found: CellFinding) -> Json:
    return {
        "cell": found.cell.label,
        "id": found.cell.id[: identity.ID_SHOWN],
        "levels": dict(found.cell.levels),
        "baseline": found.cell.is_baseline,
        "n": found.n,
        "failed": found.failed,
        "missing": found.missing,
        "outcomes": {status: found.counts.get(status, 0) for status in NAMES},
        "at_chance": found.at_chance,
        "mean": found.mean,
        "sd": found.sd,
        "values": found.values,
        "epoch_seconds": found.epoch_seconds,
        "train_seconds": found.train_seconds,
        "shares_training": found.shares_training,
        "tuned": dict(found.cell.tuned),
    }


def _tuning(found: TuningFinding | None, findings: Findings) -> Json | None:
    """Lay out range tests, trials and turned effects; null for a study without."""
    if found is None:
        return None
    searches = [
        {
            "cell": h.label, "sampler": h.search.sampler, "metric": h.search.metric, "best": h.best,
            "trials": [asdict(t) for t in h.trials], "expected_best": h.expected,
        }
        for h in found.histories
    ]  # fmt: skip
    ranges = [
        {
            "cell": c.label, "rates": c.rates, "losses": c.losses, "chosen": asdict(c.chosen) if c.chosen else None,
            "suggestions": {rule: asdict(one) for rule, one in c.suggestions.items()},
        }
        for c in found.ranges
    ]  # fmt: skip
    turns = [
        {
            "factor": t.change[0], "from": t.change[1], "to": t.change[2], "shared": t.shared, "tuned": t.tuned,
            "condition": names.where(t.scope, findings).removeprefix(", ") or None,
        }
        for t in found.turns
    ]  # fmt: skip
    return {"searches": searches, "range_tests": ranges, "turns": turns}


def _effect(effect: Effect, findings: Findings) -> Json:
    estimate = effect.estimate
    return {
        "kind": effect.kind,
        "change": names.change(effect, findings),  # in words, with the settings where it is known in some only
        "factor": effect.factor,
        "where": list(effect.where) if effect.where else None,  # of a simple effect: the factor that is held, and its level
        "from": effect.start,
        "to": effect.end,
        "effect": estimate.effect,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p,
        "n": estimate.n,
        "sd": estimate.sd,
        "verdict": estimate.verdict,
        "survivors": effect.survivors,
        "words": words.verdict_words(effect, findings),
        "reason": estimate.reason,
        "flags": list(effect.flags),
        "condition": names.where(effect.scope, findings).removeprefix(", ") or None,  # the settings, where it is not known in all
        "seeds_left_out": list(effect.left_out),
        "failures": _failures(effect, findings),
        "more_seeds": estimate.more_seeds,  # if the effect is as large as seen; 1001: more than 1000
        "more_seeds_high": estimate.more_seeds_high,
        "more_seeds_min_effect": estimate.more_seeds_min_effect,  # to see an effect of min_effect
        "more_seeds_min_effect_high": estimate.more_seeds_min_effect_high,
        "wins": estimate.wins,
        "ties": estimate.ties,
        "losses": estimate.losses,
        "per_seed": effect.per_seed,
    }


def _failures(effect: Effect, findings: Findings) -> Json | None:
    """Count the failed runs on both sides of a change; null where none failed after it."""
    found = effect.failures
    if found is None or not found.after[0]:
        return None
    (before, all_before), (after, all_after) = found.before, found.after
    return {
        "before": before, "of_before": all_before, "after": after, "of_after": all_after, "at_chance": found.at_chance,
        "chance_values": found.chance_values, "condition": names.where(found.scope, findings).removeprefix(", ") or None,
    }  # fmt: skip


def _claim(found: ClaimFinding, findings: Findings) -> Json:
    claim, estimate = found.claim, found.estimate
    return {
        "text": claim.text,
        "source": claim.source,
        "expect": claim.expect,
        "metric": found.metric,
        "verdict": found.verdict,
        "effect": estimate.effect if estimate else None,  # of going from the second level to the first
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "p": estimate.p if estimate else None,
        "n": estimate.n if estimate else 0,
        "direction": found.direction,
        "condition": names.where(found.effect.scope, findings).removeprefix(", ") or None,
        "notes": claims.notes(found, findings),
    }


def _plain(content: object) -> Any:
    """Reduce to what JSON has: JSON knows no NaN, no infinity, no tuple, and keys are text."""
    match content:
        case None | bool() | int() | str():
            return content
        case float():
            return float(content) if math.isfinite(content) else None
        case Mapping():
            return {str(key): _plain(part) for key, part in content.items()}
        case list() | tuple():
            return [_plain(part) for part in content]
    return str(content)
