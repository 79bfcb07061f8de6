"""Runs that an earlier version named otherwise are renamed in their place; a person's own name stays."""

import pytest
from commands import RECIPE, ablate
from shown import client, everything, runs_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

STUDY = f"""
name   = "schedules"
seeds  = 1
metric = "test/accuracy"

{RECIPE.replace("epochs = 3", "epochs = 1")}
[factors]
schedule.name = ["one_cycle", "constant", "cosine"]
"""


@pytest.mark.slow  # 15 s
def test_runs_known_under_an_old_label_are_renamed_and_not_doubled(tmp_path):
    study, store = tmp_path / "schedules.toml", tmp_path / "store"
    study.write_text(STUDY)
    code, _, err = ablate("run", study, "--store", store)
    assert code == 0, err
    before, api = everything(store, "schedules"), client(store)
    runs = {run.info.run_name: run.info.run_id for run in runs_of(api, "schedules")}
    assert set(runs) == {"baseline/0", "schedule=constant/0", "schedule=cosine/0"}
    for level, name in (
        ("constant", "name=constant/0"),
        ("cosine", "mine"),
    ):  # as version 0.1.0 left them, one renamed by hand
        run_id = runs[f"schedule={level}/0"]
        api.set_tag(run_id, "ablate.cell", f"name={level}")
        api.update_run(run_id, name=name)
    assert {run.info.run_name for run in runs_of(api, "schedules")} == {
        "baseline/0",
        "name=constant/0",
        "mine",
    }
    code, _, err = ablate("run", study, "--store", store)
    assert code == 0, err
    after = {run.info.run_name: run for run in runs_of(client(store), "schedules")}
    assert {name: run.info.run_id for name, run in after.items()} == {
        "baseline/0": runs["baseline/0"],
        "schedule=constant/0": runs["schedule=constant/0"],
        "mine": runs["schedule=cosine/0"],
    }
    assert after["mine"].data.tags["ablate.cell"] == "schedule=cosine"
    client(store).update_run(runs["schedule=cosine/0"], name="schedule=cosine/0")
    assert [run[:5] for run in everything(store, "schedules")] == [run[:5] for run in before]
