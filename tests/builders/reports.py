"""Findings for reports: every verdict, 500 runs, nothing at all, hostile names; and the page of each."""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from resolving import fingerprints

from ablate.analysis import findings
from ablate.analysis.findings import Findings
from ablate.analysis.model_summary import ModelSummary
from ablate.analysis.outcomes import Outcome
from ablate.analysis.tuning import History, Map, RangeCurve, Trial, TuningFinding, Turn
from ablate.recipe.range_test import Suggestion
from ablate.report import html, pictures, sections, tables
from ablate.report.canvas import Picture
from ablate.store.network import Layer, Network
from ablate.store.records import Epoch
from ablate.study import file as study_file
from ablate.study import grid
from ablate.study.grid import Cell
from ablate.study.search_space import Range, Search

ENVIRONMENT = {
    "git": {"commit": "3f2a9c1d", "dirty": True, "diff": "SECRET DIFF"},
    "versions": {"python": "3.11.7", "torch": "2.9.0"},
    "machine": {"host": "node1", "processor": "Xeon", "cores": 2, "device": "cpu"},
    "threads": 1,
    "data": "fingerprint-1",
}
REASONS = {
    "diverged": "the training loss was nan in epoch 3",
    "at_chance": "0.1 of the answers were right",
    "crashed": "RuntimeError: boom",
}
JUDGED = ("finished", "at_chance")
HOSTILE = "<script>alert(1)</script>"
ATTACK = "</script><script>alert(2)</script><a href='javascript:alert(3)'>link</a>"
Value = Callable[[Cell, int], float]


def found(
    raw: dict[str, Any],
    value: Value,
    *,
    status: Callable[[Cell, int], str] = lambda cell, seed: "finished",
    environment: Callable[[Cell, int], dict[str, Any]] = lambda cell, seed: ENVIRONMENT,
    metric: str | None = None,
    epochs: int = 4,
    classes: tuple[str, ...] = (),
    picture: str = "",
) -> Findings:
    """Find what the code says of made-up runs: a value of the study's metric for each cell and seed.

    With classes, their insides.
    """
    checked = study_file.check({"name": "x", "recipe": {"data": {"name": "digits"}}} | raw, "studies/x.toml")
    expanded = grid.expand(checked, precision="fp32")
    runs, _ = grid.runs_and_jobs(expanded, checked.seeds, fingerprints(expanded))
    outcomes = []
    for run in runs:
        became = status(run.cell, run.seed)
        given = value(run.cell, run.seed)
        lines = (
            ()
            if became in ("not_run", "running", "crashed")
            else tuple(line(epoch, epochs, given) for epoch in range(1, epochs + 1))
        )
        seconds = 10.0 + len(run.cell.label) / 10
        values = {
            "test/loss": 1 - given,
            checked.metric: given,
            "time/epoch_seconds": seconds,
            "time/train_seconds": epochs * seconds,
        }
        log = "" if became == "not_run" else f"/store/jobs/{run.job_id[:12]}/log.txt"
        came_from = {} if became == "not_run" else environment(run.cell, run.seed)
        outcome = Outcome(
            run,
            became,
            REASONS.get(became, ""),
            log,
            values if became in JUDGED else {},
            lines,
            (),
            (),
            came_from,
        )  # type: ignore[arg-type]
        outcomes.append(inside(outcome, given, classes, picture) if became in JUDGED and classes else outcome)
    return findings.find(checked, expanded, tuple(outcomes), metric=metric)


def inside(outcome: Outcome, given: float, classes: tuple[str, ...], picture: str) -> Outcome:
    """Put into a run 1000 images of each class, taken for the next two classes by mistake, and two bins."""
    known, seed = len(classes), outcome.run.seed
    rights = [int(1000 * given) - 7 * i * (seed + i) - len(outcome.run.cell.label) for i in range(known)]
    thirds = [(1000 - right) // 3 for right in rights]
    taken = [
        {i: right, (i + 1) % known: one, (i + 2) % known: 1000 - right - one}
        for i, (right, one) in enumerate(zip(rights, thirds, strict=True))
    ]
    confusion = tuple(tuple(row.get(j, 0) for j in range(known)) for row in taken)
    metrics = outcome.metrics | {
        f"test/accuracy/{name}": right / 1000 for name, right in zip(classes, rights, strict=True)
    }
    bins = ((0, 0.0, 0.0), (100 + seed, 0.5123, 0.4 + seed / 100), (900 - seed, 0.9, given))
    return replace(
        outcome, metrics=metrics, confusion=confusion, classes=classes, calibration=bins, picture=picture
    )


@cache
def png(side: int = 64) -> str:
    """Leave a real PNG of noise behind, which cannot be compressed, for as long as the tests run."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(
        Path(folder) / "wrong.png"
    )
    return str(Path(folder) / "wrong.png")


def line(epoch: int, epochs: int, given: float) -> Epoch:
    share = epoch / epochs
    accuracies = {"train/accuracy": given * share, "validation/accuracy": 0.98 * given * share}
    losses = {"train/loss": 2 - share, "validation/loss": 2.1 - share}
    return Epoch(epoch=epoch, timestamp=0, seconds=1.0, metrics=accuracies | losses)


def by_level(changes: Mapping[tuple[str, str], list[float]], *, base: float = 0.9) -> Value:
    """Make values to which each level adds its change in each seed: per-seed effects are these numbers."""
    return lambda cell, seed: (
        base
        + 0.001 * seed
        + sum(d[seed] for (name, level), d in changes.items() if cell.levels.get(name) == level)
    )


ROTATION = {"factors": {"augment": {"rotation": [0, 15]}}}
HELPS = [0.0093, 0.0085, 0.0101, 0.0090, 0.0096]
HURTS = [-0.031, -0.029, -0.032, -0.030, -0.031]
EQUIVALENT = [0.0002, -0.0003, 0.0001, -0.0002, 0.0001]
UNDECIDED = [0.004, -0.003, 0.002, -0.001, 0.0025]
ROTATED = by_level({("augment.rotation", "15"): HELPS})
EVERYTHING = {
    "name": "augmentation",
    "question": "Which augmentations help?",
    "min_effect": 0.002,
    "factors": {
        "augment": {
            "crop": ["random_crop", "random_resized_crop"],
            "rotation": [0, 15],
            "flip": [True, False],
        },
        "model": {"conv_dropout": [0.0, 0.1], "batch_norm": [True, False]},
        "evaluation": {"tta": ["none", "flip"]},
    },
    "exclude": [
        {
            "if": "augment.rotation > 0 and model.batch_norm == false and model.conv_dropout > 0",
            "why": "is known to diverge",
        }
    ],
    "claim": [
        {
            "text": "RandomCrop beats RandomResizedCrop",
            "source": "a blog",
            "expect": "augment.crop: random_crop > random_resized_crop",
        },
        {"text": "Rotation hurts", "expect": "augment.rotation: 15 < 0"},
        {"text": "Dropout matters", "expect": "model.conv_dropout: 0.1 > 0.0"},
    ],
}
CHANGES = {
    ("augment.rotation", "15"): HELPS,
    ("augment.crop", "random_resized_crop"): HURTS,
    ("augment.flip", "false"): EQUIVALENT,
    ("model.conv_dropout", "0.1"): UNDECIDED,
    ("model.batch_norm", "false"): [-0.05, -0.051, -0.049, -0.05, -0.052],
    ("evaluation.tta", "flip"): [0.004, 0.004, 0.004, 0.004, 0.004],
}


def everything() -> Findings:
    """Make a study with every verdict, failures, exclusions, claims, shared trainings and two torches."""

    def status(cell: Cell, seed: int) -> str:
        if cell.levels["model.batch_norm"] == "false" and seed == 4:
            return "diverged"
        return {("rotation=15", 4): "crashed", ("rotation=15, tta=flip", 4): "not_run"}.get(
            (cell.label, seed), "finished"
        )

    def environment(cell: Cell, seed: int) -> dict[str, Any]:
        return (
            ENVIRONMENT if seed < 4 else ENVIRONMENT | {"versions": {"python": "3.11.7", "torch": "2.10.0"}}
        )

    made = found(
        EVERYTHING,
        by_level(CHANGES),
        status=status,
        environment=environment,
        classes=("cat", "dog", "bird", "frog"),
        picture=png(),
    )
    return with_networks(with_tuning(made), cnn("cnn4", made))


def many() -> Findings:
    """Make a study of 500 runs: 100 cells under 5 seeds, 10 classes, 30 epochs."""
    factors = {"rotation": [0, 5, 10, 15, 20], "erasing": [0, 0.1, 0.2, 0.3, 0.4], "flip": [True, False]}
    raw = {
        "name": "many",
        "factors": {"augment": factors, "model": {"batch_norm": [True, False]}},
        "recipe": {"model": {"name": "cnn4"}},
    }
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    noise = np.random.default_rng(1).normal(0.85, 0.004, (1000, 5))
    made = found(
        raw,
        lambda cell, seed: noise[hash_of(cell.label) % 1000, seed],
        epochs=30,
        classes=classes,
        picture=png(),
    )
    return with_networks(with_tuning(made), *(cnn("cnn4", made, blocks=5, frozen=i) for i in range(20)))


def hash_of(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def with_tuning(of: Findings) -> Findings:
    """Let a study have tuned its cells: a history, a map, an effect that turns, a range test each."""
    labels = [found.cell.label for found in of.cells][:14]  # more than are drawn
    tried = {
        path: Range(low=low, high=high, log=True)
        for path, low, high in (("optimizer.lr", 1e-3, 1.0), ("optimizer.weight_decay", 1e-6, 1e-2))
    }
    asked = Search(5, "cell", "random", "median", (1_000_000,), "validation/accuracy", tried)
    states = ("complete", "complete", "pruned", "complete", "diverged")
    trials = tuple(
        Trial(
            i,
            {"optimizer.lr": 10 ** -(i / 2), "optimizer.weight_decay": 10 ** -(i + 2)},
            0.5 + 0.1 * i if state == "complete" else None,
            state,
            i > 0,
        )
        for i, state in enumerate(states)
    )
    best = ((1, 0.5), (2, 0.6), (3, 0.6), (4, 0.8), (5, 0.8))
    mapped = Map(
        ("optimizer.lr", "optimizer.weight_decay"),
        (1e-3, 1e-2, 1.0),
        (1e-6, 1e-4, 1e-2),
        ((0.5, 0.6, 0.7), (0.5, 0.7, 0.8), (0.4, 0.5, 0.5)),
    )
    histories = [
        History(label, asked, tuple(tried), frozenset(tried), trials, 3, best, ((1, 0.6), (2, 0.7)), mapped)
        for label in labels
    ]
    suggested = {
        "valley": Suggestion("valley", "ok", 0.01, 0.005, 0.02),
        "steepest": Suggestion("steepest", "flat"),
    }
    rates = tuple(10 ** (i / 10 - 5) for i in range(50))
    losses = (*(2.3 - 0.03 * i for i in range(49)), float("inf"))
    ranges = [
        RangeCurve(
            label,
            rates,
            losses,
            tuple(loss - 0.1 for loss in losses[:49]),
            losses[:49],
            rates[:49],
            suggested,
            suggested["valley"],
            tuple(min(0.9, 0.1 + i / 50) for i in range(49)),
        )
        for label in labels
    ]
    change = of.effects[0].changes[0] if of.effects else ("a", "b", "c")
    turns = (Turn(change, 0.012, -0.034),)
    cells = tuple(
        replace(one, cell=replace(one.cell, tuned={"optimizer.lr": 0.01234} if i % 2 else {}))
        for i, one in enumerate(of.cells)
    )
    return replace(of, cells=cells, tuning=TuningFinding(tuple(ranges), tuple(histories), turns))


def with_networks(of: Findings, *networks: ModelSummary) -> Findings:
    return replace(of, summaries=networks)


def cnn(name: str, of: Findings, *, blocks: int = 4, layer: str = "block", frozen: int = 1) -> ModelSummary:
    """Make a network of convolutions, norms and a head, of which the first blocks are frozen."""
    layers: list[Layer] = []
    for i in range(blocks):
        share = 0 if i < frozen else 1
        shape = (32, 16, 16)
        layers += [
            Layer(
                name=f"{layer}{i}.conv", kind="Conv2d", shape=shape, parameters=9216,
                trainable_parameters=share * 9216, macs=2_359_296,
            ),
            Layer(
                name=f"{layer}{i}.norm", kind="BatchNorm2d", shape=shape, parameters=64,
                trainable_parameters=share * 64,
            ),
            Layer(name=f"{layer}{i}.relu", kind="ReLU", shape=shape),
        ]  # fmt: skip
    layers.append(
        Layer(name="head", kind="Linear", shape=(10,), parameters=330, trainable_parameters=330, macs=320)
    )
    network = Network(
        parameters=sum(each.parameters for each in layers),
        trainable_parameters=sum(each.trainable_parameters for each in layers),
        macs=sum(each.macs for each in layers), image=(3, 32, 32), layers=tuple(layers),
    )  # fmt: skip
    return ModelSummary(name, tuple(each.cell.label for each in of.cells), network)


def nothing() -> Findings:
    return found(ROTATION | {"name": "empty"}, lambda cell, seed: 0.0, status=lambda cell, seed: "not_run")


def level(name: str, **augment: Any) -> dict[str, Any]:
    return {"name": name, "set": {"augment": augment}}


def hostile() -> Findings:
    """Make a study whose every free text attacks the page."""
    raw = {
        "name": HOSTILE,
        "question": f'"><img src=x onerror=alert(1)> {HOSTILE}',
        "factor": [
            {
                "name": f"<b>{HOSTILE}</b> %{{x}} $a$",
                "levels": [level('a "quoted" \' level', rotation=0), level(ATTACK, rotation=15)],
            },
            {"name": "{{ 7 * 7 }}", "levels": [level("off", flip=False), level("<i>on</i>", flip=True)]},
        ],
        "claim": [{"text": HOSTILE, "source": "<b>me</b>", "expect": "{{ 7 * 7 }}: off > <i>on</i>"}],
    }
    classes = (HOSTILE, "<b>{{ 7 * 7 }}</b> %{x} $a$", "<img src=x onerror=alert(4)>")
    made = found(
        raw,
        lambda cell, seed: (
            0.8 + 0.01 * len(cell.label) ** 0.5 + 0.001 * ((seed * 7) % 5) * len(cell.label) / 100
        ),
        classes=classes,
    )
    return with_networks(with_tuning(made), cnn(HOSTILE, made, layer=ATTACK))


def page(of: Findings) -> str:
    written = replace(of, study=replace(of.study, text='name = "x"  # a & b'))
    return html.render(written, created="20 Nov 2026", version="0.1.0", store="/store")


def tables_of(of: Findings) -> dict[str, tables.Table]:
    """Return the tables of the page by name."""
    every = (table for section in sections.make(of).values() for table in section.tables)
    return {table.name.removesuffix("-table"): table for table in every}


def pictures_of(of: Findings) -> dict[str, Picture]:
    """Return the pictures of the page by name."""
    return {picture.name: picture for picture in pictures.every(of)}


def rotated(changes: list[float], **more: Any) -> Findings:
    """Find a study of one factor, whose change in each seed is given."""
    return found(ROTATION | {"seeds": len(changes)} | more, by_level({("augment.rotation", "15"): changes}))


class Page(HTMLParser):
    """The tags, the text outside scripts and styles, and whether every tag is closed."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
        self.text.append(" " if tag in ("td", "th", "p", "h1", "h2", "span") else "")

    def handle_data(self, data):
        into = {"script": self.scripts, "style": self.styles}.get(
            self.open[-1] if self.open else "", self.text
        )
        into.append(data)

    @property
    def said(self) -> str:
        return " ".join("".join(self.text).split())
