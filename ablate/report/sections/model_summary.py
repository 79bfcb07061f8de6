"""The networks layer by layer: kind, output, parameters, multiply-adds, and what is frozen."""

from itertools import accumulate

from ablate.analysis.findings import Findings
from ablate.analysis.model_summary import ModelSummary
from ablate.messages import count
from ablate.report.section import Folded, Note, Section
from ablate.report.tables import Cell, Column, Label, table
from ablate.store.files import Json
from ablate.store.network import Layer

MOST_NETWORKS, MOST_ROWS = 12, 600  # on the page, the rows of all networks; about 170 bytes each
MOST_CELLS = 3  # named of those that train a network
COLUMNS: tuple[Column, ...] = (
    ("layer", "head"), ("kind", "text"), ("output", "value"), ("parameters", "number"), ("trained", "text"),
    ("multiply-adds", "number"),
)  # fmt: skip


def section(findings: Findings) -> Section:
    """Return a folded table for each different network, those that are too many counted."""
    every = findings.summaries
    rows = accumulate(len(each.network.layers) for each in every)
    shown = sum(i == 0 or total <= MOST_ROWS for i, total in enumerate(rows))
    drawn = every[: min(shown, MOST_NETWORKS)]
    blocks = [
        Folded(_summary(each), table(f"layers-{number}-table", _caption(each), COLUMNS, _rows(each)))
        for number, each in enumerate(drawn, 1)
    ]
    left = len(every) - len(drawn)
    note = f"{count(left, 'more network')}: `ablate report --format json` has {'it' if left == 1 else 'all'}."
    return Section(
        "model-summary-title",
        "Model summary",
        (*blocks, *([Note(note, soft=True)] if left else [])),
        {"model_summaries": [_data(each) for each in every]},
    )


def _summary(each: ModelSummary) -> str:
    """Return a network in one line: its size, its cost, and whose it is."""
    network = each.network
    parts = [_parameters(network.parameters or 0, network.trainable_parameters)]
    parts += [] if network.macs is None else [f"{network.macs:,} multiply-adds an image"]
    others = len(each.cells) - MOST_CELLS
    cells = [*each.cells[:MOST_CELLS], *([f"{count(others, 'more cell')}"] if others > 0 else [])]
    return f"{each.name}: {', '.join(parts)} ({'; '.join(cells)})"


def _parameters(parameters: int, trained: int | None) -> str:
    frozen = parameters - (parameters if trained is None else trained)
    return f"{parameters:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")


def _caption(each: ModelSummary) -> str:
    image = _shape(each.network.image) or "one size"
    folded = any(layer.layers for layer in each.network.layers)
    said = f"{each.name} as it was trained, for an image of {image} (channels, height, width)"
    return said + ("; a block of many layers stands in one row" if folded else "")


def _rows(each: ModelSummary) -> list[tuple[Cell, ...]]:
    network = each.network
    total = (
        "total", "", "", f"{network.parameters or 0:,}",
        _trained(network.parameters or 0, network.trainable_parameters or 0),
        "" if network.macs is None else f"{network.macs:,}",
    )  # fmt: skip
    return [*(_row(layer) for layer in network.layers), total]


def _row(layer: Layer) -> tuple[Cell, ...]:
    inside = count(layer.layers, "layer") if layer.layers else ""
    head = Label(layer.name, inside) if layer.name else _nameless(layer, inside)
    return (
        head, layer.kind, _shape(layer.shape), f"{layer.parameters:,}" if layer.parameters else "",
        _trained(layer.parameters, layer.trainable_parameters), f"{layer.macs:,}" if layer.macs else "",
    )  # fmt: skip


def _nameless(layer: Layer, inside: str) -> Label:
    """Return the head of what has no name: parameters of the network itself, or the rows left out."""
    return Label("the network itself" if layer.kind else "all further layers", inside)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _trained(parameters: int, trainable: int) -> str:
    if not parameters:
        return ""
    return "yes" if trainable == parameters else f"{trainable:,}" if trainable else "frozen"


def _data(each: ModelSummary) -> Json:
    network = each.network
    return {
        "network": each.name,
        "cells": list(each.cells),
        "image": list(network.image),
        "parameters": network.parameters,
        "trainable_parameters": network.trainable_parameters,
        "macs": network.macs,
        "layers": [layer.model_dump() for layer in network.layers],
    }
