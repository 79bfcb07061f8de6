"""Made-up outcomes of a study's runs, and what the analysis says of them."""

import numpy as np
from resolving import fingerprints

from ablate.analysis import findings
from ablate.analysis.outcomes import Outcome
from ablate.study import file as study_file
from ablate.study import grid

FACTORS = {
    "augment": {"rotation": [0, 15]},
    "model": {"batch_norm": [True, False], "conv_dropout": [0.0, 0.1, 0.3]},
}


def make(factors=FACTORS, **more):
    """Make a study and its grid."""
    raw = {
        "name": "x",
        "seeds": 3,
        "min_effect": 0.01,
        "recipe": {"model": {"name": "cnn4"}},
        "factors": factors,
    } | more
    checked = study_file.check(raw, "x.toml")
    return checked, grid.expand(checked, precision="fp32")


def outcomes(made, value, *, status=lambda cell, seed: "finished"):
    """Fabricate what the journals would say; `value` gives a run's accuracy."""
    checked, expanded = made
    runs, _ = grid.runs_and_jobs(expanded, checked.seeds, fingerprints(expanded))
    found = []
    for run in runs:
        how = status(run.cell, run.seed)
        good = {
            "test/accuracy": value(run.cell, run.seed),
            "time/epoch_seconds": 1.0 + run.seed,
            "time/train_seconds": 9.0,
        }
        found.append(
            Outcome(
                run,
                how,
                "" if how == "finished" else "because",
                "",
                good if how == "finished" else {},
                (),
                (),
                (),
                {},
            )
        )
    return tuple(found)


def random_value(seed=0):
    rng, known = np.random.default_rng(seed), {}

    def value(cell, seed):
        return known.setdefault((cell.label, seed), float(rng.normal(0.7, 0.05)))

    return value


def find(made, value, **more):
    return findings.find(*made, outcomes(made, value, **more))


def effect(found, factor, end=None):
    return next(
        e for e in (*found.effects, *found.interactions) if e.factor == factor and end in (None, e.end)
    )


CROPS = {"augment": {"crop": ["none", "random_resized_crop"]}, "model": {"batch_norm": [True, False]}}


def crossed(status=lambda cell, seed: "finished", **more):
    """Let a crop help without BatchNorm and hurt with it, under noise: (value, findings) of 5 seeds."""
    rng, known = np.random.default_rng(3), {}
    made = make(CROPS, seeds=5, **more)

    def value(cell, seed):
        cropped, bare = cell.levels["augment.crop"] != "none", cell.levels["model.batch_norm"] == "false"
        return known.setdefault(
            (cell.label, seed), 0.7 + cropped * (0.037 if bare else -0.045) + float(rng.normal(0, 0.008))
        )

    for cell in made[1].cells:
        for seed in range(5):
            value(cell, seed)
    return value, find(made, value, status=status)


def half(cell, seed):
    """Take the baseline away but for one seed."""
    return "running" if cell.is_baseline and seed < 4 else "finished"


TURNED = {
    "augment": {"rotation": [0, 15]},
    "model": {"batch_norm": [True, False], "conv_dropout": [0.0, 0.1, 0.3]},
}


def turned(**more):
    """Rotation helps without BatchNorm and hurts with it: (made, value, findings)."""
    made, noise, known = make(TURNED, seeds=5, **more), np.random.default_rng(4), {}

    def value(cell, seed):
        r, b = cell.levels["augment.rotation"] == "15", cell.levels["model.batch_norm"] == "false"
        effect = (
            0.7
            + 0.03 * (cell.levels["model.conv_dropout"] == "0.3")
            + (0.1 if r and b else -0.1 if r else 0.0)
        )
        return known.setdefault((cell.label, seed), effect + float(noise.normal(0, 0.002)))

    return made, value, find(made, value)
