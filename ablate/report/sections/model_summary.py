"""The networks layer by layer: kind, output, parameters, multiply-adds, and what is frozen."""

from itertools import accumulate

from ablate.analysis.findings import Findings
from ablate.analysis.model_summary import ModelSummary
from ablate.messages import count
from ablate.report.section import Folded, Note, Section
from ablate.report.tables import Cell, Column, Label, Table, table
from ablate.store.files import Json
from ablate.store.network import Layer, Network

MOST_NETWORKS, MOST_ROWS = 12, 600  # on the page, the rows of all networks; about 200 bytes each
MOST_CELLS = 3  # named of those that train a network


def section(findings: Findings) -> Section:
    """Return a folded table for each different network, those that are too many counted."""
    every = findings.summaries
    rows = accumulate(len(each.network.layers) for each in every)
    shown = sum(i == 0 or total <= MOST_ROWS for i, total in enumerate(rows))
    drawn = every[: min(shown, MOST_NETWORKS)]
    blocks = [
        Folded(_summary(each), _layers_table(f"layers-{number}-table", each))
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


def _layers_table(name: str, each: ModelSummary) -> Table:
    """Return a row for each layer and one of the totals; what is trained is said where not everything is."""
    network = each.network
    layers = [_row(_head(layer), layer, _shape(layer.shape)) for layer in network.layers]
    total = _row("total", network, "")
    has_frozen = any(layer.trainable_parameters < layer.parameters for layer in network.layers)
    columns: list[Column] = [
        ("layer", "head"), ("output", "value"), ("parameters", "number"), ("trained", "value"),
        ("multiply-adds", "number"),
    ]  # fmt: skip
    kept = [i for i, (title, _) in enumerate(columns) if has_frozen or title != "trained"]
    rows = [tuple(row[i] for i in kept) for row in (*layers, total)]
    return table(name, _caption(each), [columns[i] for i in kept], rows)


def _row(head: Cell, one: Layer | Network, shape: str) -> tuple[Cell, ...]:
    parameters, trained = one.parameters or 0, one.trainable_parameters or 0
    share = "yes" if trained == parameters else f"{trained:,}" if trained else "frozen"
    return (
        head, shape, f"{parameters:,}" if parameters else "", share if parameters else "",
        f"{one.macs:,}" if one.macs else "",
    )  # fmt: skip


def _head(layer: Layer) -> Label:
    """Return the name of a layer, and its kind in passing."""
    nameless = "the network itself" if layer.kind else "all further layers"
    inside = count(layer.layers, "layer") if layer.layers else ""
    return Label(layer.name or nameless, ", ".join(filter(None, (layer.kind, inside))))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


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
