"""Layers of networks, read from what trainings of a study wrote: one file for all that share a network."""

from dataclasses import replace

import pytest
from outcomes import make, outcomes

from ablate.analysis import model_summary
from ablate.store import files, layout

LAYERS = [{"name": "head", "kind": "Linear", "shape": [10], "parameters": 5130, "macs": 5120}]
FACTORS = {"augment": {"rotation": [0, 15]}, "model": {"batch_norm": [True, False]}}


@pytest.fixture
def here(tmp_path):
    return layout.open_store(tmp_path / "store")


def trained(here, write):
    """Make runs of four cells, of two networks, and let `write` say what is in each job's file."""
    runs = outcomes(make(FACTORS), lambda cell, seed: 0.5)
    for outcome in runs:
        if (content := write(outcome.run)) is not None:
            files.write_json(here.job(outcome.run.job_id).model, content)
    return tuple(replace(outcome, trained=True) for outcome in runs)


def named(run):
    """Make a file of which the layers tell the network."""
    layers = [LAYERS[0] | {"name": str(run.cell.recipe.model.batch_norm)}]
    return {"model": {}, "parameters": 5130, "macs": 5120, "receptive_field": None, "layers": layers}


def test_each_network_is_there_once_with_all_of_its_cells(here):
    found = model_summary.read(trained(here, named), here)
    assert [(each.name, each.cells, each.network.layers[0].name) for each in found] == [
        ("cnn4", ("baseline", "rotation=15"), "True"),
        ("cnn4", ("batch_norm=false", "rotation=15, batch_norm=false"), "False"),
    ]
    assert found[0].network.layers[0].shape == (10,)
    assert found[0].network.trainable_parameters is None


def test_one_file_is_read_for_all_that_share_a_network(here, monkeypatch):
    runs, read = trained(here, named), []
    real = model_summary.records.read_or_empty
    monkeypatch.setattr(
        model_summary.records, "read_or_empty", lambda path, kind: read.append(path) or real(path, kind)
    )
    model_summary.read(runs, here)
    assert len(read) == 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_job_that_recorded_no_layers_is_passed_over_for_one_that_did(here, seed):
    def write(run):
        content = named(run)
        return content if run.seed == seed else {key: content[key] for key in ("parameters", "macs")}

    assert len(model_summary.read(trained(here, write), here)) == 2


@pytest.mark.parametrize(
    "content",
    [
        None,
        {"parameters": 5130, "macs": 5120},
        {"layers": [{"name": 3}]},
        {"layers": [LAYERS[0] | {"macs": -1}]},
        {"layers": LAYERS, "image": [1] * 9},
    ],
)
def test_what_says_nothing_or_is_spoilt_is_no_network(here, content):
    assert model_summary.read(trained(here, lambda run: content), here) == ()


def test_what_is_not_trained_to_its_end_is_not_asked(here):
    runs = tuple(replace(outcome, trained=False) for outcome in trained(here, named))
    assert model_summary.read(runs, here) == ()
