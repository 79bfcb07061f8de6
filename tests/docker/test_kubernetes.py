"""docker/kubernetes.yaml is a Job that Kubernetes takes, and its command runs the tasks of a study."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from commands import ablate, attempts, results

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests" / "builders" / "kubernetes_job.json").read_text())


@pytest.fixture
def manifest():
    return yaml.safe_load((ROOT / "docker" / "kubernetes.yaml").read_text())


@pytest.fixture
def container(manifest):
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    return only


def test_the_manifest_is_a_job(manifest, container):
    jsonschema.validate(manifest, SCHEMA)
    volumes = {volume["name"] for volume in manifest["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert "nvidia.com/gpu" in container["resources"]["limits"]
    (codes,) = [rule["onExitCodes"] for rule in manifest["spec"]["podFailurePolicy"]["rules"][1:]]
    assert codes["containerName"] == container["name"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("completionMode", "NonIndexed"),
        ("completions", "four"),
        ("backoffLimitPerIndex", -1),
        ("template.spec.restartPolicy", "Always"),
        ("template.spec.securityContext.runAsUser", 0),
        ("template.spec.containers.0.resource", {}),
        ("template.spec.volumes.0.name", "Store"),
    ],
)
def test_what_kubernetes_does_not_take_is_seen_by_the_check(manifest, path, value):
    *parts, last = path.split(".")
    place = manifest["spec"]
    for part in parts:
        place = place[int(part) if part.isdecimal() else part]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.slow
def test_its_command_trains_what_the_file_of_tasks_says(container, study, done, tmp_path):
    store = tmp_path / "mlruns"
    mounted = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "store")
    path = next(arg for arg in container["args"] if arg.endswith(".jsonl")).replace(mounted, str(store))
    own = ("--store", store, "--set", "seeds=1")
    code, out, err = ablate("run", study, *own, "--tasks", path)
    assert (code, "2 tasks in" in out) == (0, True), out + err
    assert attempts(store) == 0
    for index in range(2):  # as the kubelet does: $(NAME) is the variable's value
        arguments = [
            each.replace(mounted, str(store)).replace("$(JOB_COMPLETION_INDEX)", str(index))
            for each in container["args"]
        ]
        code, out, err = ablate(*arguments)
        assert (code, out.strip().endswith(": finished")) == (0, True), out + err
    code, out, err = ablate(
        *[arg.replace(mounted, str(store)) for arg in container["args"][:-2]], "--index", 2
    )
    assert (code, "has no task 2: its tasks are 0 to 1" in err) == (2, True), err
    code, out, err = ablate("run", study, *own)
    assert (code, "nothing to train" in out) == (0, True), out + err
    assert attempts(store) == 2
    here, there = results(done[0] / "store"), results(store)
    journals = [name for name in there if name.endswith("journal.jsonl")]
    assert len(journals) == 2
    assert all(there[name] == here[name] for name in journals)


def test_the_file_of_tasks_is_written_for_cells_that_are_tuned(study, tmp_path):
    search = "[search]\ntrials = 2\nseeds = 1\nspace = { optimizer.lr = { low = 0.001, high = 0.1 } }\n\n"
    text = study.read_text().replace("[factors]", f"{search}[factors]")
    study.write_text(text)
    path = tmp_path / "tasks.jsonl"
    code, _, err = ablate("run", study, "--store", tmp_path / "mlruns", "--tasks", path)
    assert (code, "--tasks needs cells that are tuned" in err, path.exists()) == (2, True, False), err
