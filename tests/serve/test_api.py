"""What programs are answered: the values of the commands' --json, and all mistakes of a study at once."""

import json
import subprocess
import sys

import pytest
from commands import TINY, ablate
from services import JSON, TOML, serving

TOML_MISTAKES = TINY.replace("seeds      = 2", 'seeds = "two"').replace('name = "cnn4"', 'name = "cnn5"')


@pytest.fixture(scope="module")
def store(done):
    return done[0] / "store"


@pytest.fixture(scope="module")
def client(store):
    with serving(store) as asked:
        yield asked


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/studies", ["status", "--json"]),
        ("/studies/tiny/status", ["status", "tiny", "--json"]),
        ("/studies/tiny/plan", ["plan", "tiny", "--json"]),
        ("/studies/tiny/report", ["report", "tiny", "--json"]),
        ("/queue", ["queue", "--json"]),
    ],
)
def test_the_values_are_those_of_the_commands(path, command, client, store):
    code, out, _ = ablate(*command, "--store", store)
    assert code == 0
    assert client.get(path).json == json.loads(out)


@pytest.mark.parametrize("form", ["md", "csv", "tex"])
def test_a_report_has_the_forms_of_the_command(form, client, store):
    assert (
        client.get(f"/studies/tiny/report?format={form}").text
        == ablate("report", "tiny", "--format", form, "--store", store)[1]
    )


def test_claims_are_answered_in_words_and_with_the_exit_code_of_the_command(client, store):
    code, out, err = ablate("check", "tiny", "--store", store)
    answer = client.get("/studies/tiny/check").json
    assert (answer["exit_code"], answer["text"], answer["note"]) == (code, out, err.strip())


def test_verdicts_are_those_of_the_report(client):
    whole = client.get("/studies/tiny/report").json
    stand = client.get("/studies/tiny/verdicts").json
    assert {"headline", "effects", "claims"} <= stand.keys()
    assert stand == {key: whole[key] for key in stand}


def test_every_run_has_its_job_and_its_value(client):
    runs = client.get("/studies/tiny/runs").json
    cells = client.get("/studies/tiny/report").json["cells"]
    assert len(runs) == 8
    assert {(run["cell"], str(run["seed"])): run["value"] for run in runs} == {
        (cell["cell"], seed): value for cell in cells for seed, value in cell["values"].items()
    }


def test_a_log_is_read_from_any_offset_and_by_the_identity_that_was_answered(client, store):
    first = client.get("/logs?job=tiny:baseline/0").json
    assert first["text"] == ablate("logs", "tiny:baseline/0", "--store", store)[1]
    assert first["ended"]
    assert first["next"] == len(first["text"])
    half = first["text"].index("\n") + 1
    assert client.get(f"/logs?job={first['job']}&offset={half}").json["text"] == first["text"][half:]


def test_all_mistakes_of_a_study_are_told_as_the_terminal_tells_them(client, store, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TOML_MISTAKES)
    code, _, err = ablate("plan", path, "--store", store)
    assert code == 2
    lines = [line.removeprefix(f"{path}: ") for line in err.splitlines()]
    assert len(lines) > 1
    for address in ("/plan", "/queue"):
        answer = client.post(address, TOML_MISTAKES)
        assert answer.status == 422
        assert [mistake.partition(": ")[2] for mistake in answer.mistakes] == lines
        assert answer.json["detail"] == "\n".join(answer.mistakes)


def test_a_text_is_planned_and_nothing_is_written(client, store):
    before = sorted(store.rglob("*"))
    answer = client.post("/plan?set=seeds=5&set=name=other", TINY).json
    assert (answer["study"], answer["seeds"], answer["runs"]) == ("other", [0, 1, 2, 3, 4], 20)
    assert answer["detectable_effect"] is not None
    assert sorted(store.rglob("*")) == before


def test_two_studies_are_compared_as_the_command_does(client, store):
    out = ablate("compare", "tiny", "tiny", "--json", "--store", store)[1]
    assert client.get("/compare?study=tiny&study=tiny").json["values"] == json.loads(out)


def test_a_study_is_submitted_once_and_its_turn_changed(tmp_path):
    with serving(tmp_path / "store") as asked:
        first = asked.post("/queue?set=seeds=3&by=Ada", TINY, Idempotency_Key="a")
        assert (first.status, first.json["state"], first.json["sets"]) == (201, "waiting", ["seeds=3"])
        assert asked.post("/queue?set=seeds=3", TINY, Idempotency_Key="a").json["id"] == first.json["id"]
        clash = asked.post("/queue", TINY.replace("tiny", "other"), Idempotency_Key="a")
        assert clash.status == 409
        second = asked.post("/queue?set=name=second", TINY).json
        identity = second["id"]
        move = json.dumps({"before": first.json["id"]}).encode()
        assert asked.post(f"/queue/{identity}/move", move).status == 200
        assert [entry["study"] for entry in asked.get("/queue").json] == ["second", "tiny"]
        for action, state in (("pause", "paused"), ("resume", "waiting"), ("cancel", "cancelled")):
            assert asked.post(f"/queue/{identity}/{action}").json["state"] == state
        assert asked.get(f"/queue/{identity}").json["state"] == "cancelled"
        assert asked.get(f"/queue/{identity}/file").text == TINY


@pytest.mark.parametrize(
    "path",
    [
        "/studies/nope/status",
        "/studies/nope/report",
        "/studies/nope/events",
        "/studies/nope/plan",
        "/queue/00009",
        "/compare?study=tiny&study=nope",
        "/studies/..%2F..%2Fetc/status",
        "/studies/tiny.toml/status",
        "/nothing",
    ],
)
def test_what_is_not_there_is_a_sentence(path, client):
    answer = client.get(path)
    assert answer.status == 404
    assert answer.mistakes


def test_a_name_of_any_kind_is_one_part_of_an_address(tmp_path):
    from ablate.serve.addresses import segment
    from ablate.store import layout, study_folder
    from ablate.store.study_folder import Settled
    from ablate.study import file as study_file

    names = ["a/b", "..", ".", "100%", "%2e%2e", "x y", "ä", "a?b#c", "x.toml", "a/status", '<i>"&']
    store = layout.open_store(tmp_path / "store")
    layout.create(store)
    for name in names:
        study = study_file.check({"name": name, "factors": {"augment": {"flip": [False, True]}}}, "test")
        study_folder.keep(store, study, Settled())
    with serving(store.path) as asked:
        for name in names:
            assert asked.get(f"/studies/{segment(name)}/status").json["study"] == name


def test_the_interface_is_described(client):
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.")
    paths = {path.removeprefix("/api/v1"): " ".join(sorted(of)) for path, of in document["paths"].items()}
    reads = ("status", "runs", "report", "verdicts", "check", "plan", "file", "events")
    changes = ("cancel", "pause", "resume", "move")
    others = ("/health", "/studies", "/compare", "/logs", "/queue/events", "/queue/{identity}")
    assert paths == {
        **dict.fromkeys((*others, "/queue/{identity}/file"), "get"),
        **{f"/studies/{{study}}/{name}": "get" for name in reads},
        **{f"/queue/{{identity}}/{name}": "post" for name in changes},
        "/plan": "post",
        "/queue": "get post",
    }
    submit = document["paths"]["/api/v1/queue"]["post"]
    assert "application/toml" in submit["requestBody"]["content"]
    for of in document["paths"].values():
        for operation in of.values():
            assert operation["summary"]
            assert "application/problem+json" in operation["responses"]["422"]["content"]


def test_what_is_promised_of_status_is_what_comes(client):
    import jsonschema

    document = client.get("/openapi.json").json
    for path, address in (("/studies/{study}/status", "/studies/tiny/status"), ("/studies", "/studies")):
        content = document["paths"][f"/api/v1{path}"]["get"]["responses"]["200"]["content"]
        schema = content["application/json"]["schema"] | {"components": document["components"]}
        jsonschema.validate(client.get(address).json, schema)


def test_the_web_process_needs_no_heavy_library():
    heavy = ("torch", "mlflow", "plotly", "pandas", "scipy", "optuna", "sklearn")
    script = f"import sys; import ablate.serve.app; print(*[name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        == "\n"
    )


def test_what_changes_something_must_say_what_it_is(client):
    for headers in ({}, {"Content_Type": "text/plain"}, {"Content_Type": "multipart/form-data"}):
        assert client("POST", "/api/v1/plan", TINY, **headers).status == 415
    assert client("POST", "/api/v1/queue/00001/cancel", b"").status == 415
    assert client("POST", "/api/v1/plan", TINY, **TOML).status == 200
    assert client("POST", "/api/v1/queue/00001/cancel", b"", **JSON).status == 404
