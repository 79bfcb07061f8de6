"""`ablate doctor` on the machine: room, locks, versions, processors."""

import errno
import fcntl
import os
import tempfile
from importlib import metadata
from types import SimpleNamespace
from unittest.mock import ANY

import pytest
from drivers import FIRST, H100, SECOND, TWO
from stores import examine, job, wrong

from ablate.execution import preflight
from ablate.upkeep.doctor import machine

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_disk_that_is_nearly_full(store, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=99e6))
    assert [(one.check, one.severity) for one in wrong(examine(store))] == [("room", "problem")]
    with (job(store) / "checkpoint.pt").open("wb") as file:
        file.truncate(10**9)  # takes no room itself
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9 - 1))
    assert ("room", "problem") in {(one.check, one.severity) for one in wrong(examine(store))}


def _read_only(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    ("module", "name", "instead", "severity", "words"),
    [
        (tempfile, "NamedTemporaryFile", _read_only, "note", "Read-only file system"),
        (fcntl, "flock", lambda *_: None, "problem", "keeps nobody out"),
    ],
)
def test_a_store_that_cannot_be_written_or_has_no_locks(
    store, monkeypatch, module, name, instead, severity, words
):
    monkeypatch.setattr(module, name, instead)
    assert [(one.check, one.severity, words in one.says) for one in wrong(examine(store))] == [
        ("locks", severity, True)
    ]


@pytest.mark.parametrize(
    ("package", "version", "severity", "words"),
    [
        ("torch", "1.13.1", "problem", "torch 1.13.1 must be >=2."),
        ("ruff", "0.1", "note", "ruff 0.1 must be"),
        ("mlflow", None, "problem", "not inst"),
    ],
)
def test_versions_that_are_too_old_or_missing(tmp_path, monkeypatch, package, version, severity, words):
    real = metadata.version

    def ask(name):
        if name != package:
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(metadata, "version", ask)
    found = [one for one in wrong(examine(tmp_path)) if one.check == "versions"]
    assert {one.severity for one in found} == {severity}
    assert words in found[0].says
    assert "pip install" in found[0].do


def of_device(folder):
    return [(one.severity, one.says) for one in examine(folder) if one.check == "device"]


def test_a_gpu_that_cannot_be_used_is_a_problem_and_the_other_checks_go_on(store, machine):
    machine.driver(*TWO, init="802")
    findings = examine(store)
    assert of_device(store) == [
        ("problem", "there is a GPU that cannot be used: cuInit answers CUDA_ERROR_SYSTEM_NOT_READY (802)")
    ]
    assert any(finding.check == "room" and finding.severity == "ok" for finding in findings)


def test_gpus_are_named_and_each_is_tried(tmp_path, machine, monkeypatch):
    machine.driver((FIRST, H100), (SECOND, "Tesla P100|6|0|16|0"))
    monkeypatch.setattr(preflight, "examine", lambda names: {names[1]: "no kernels"})
    assert of_device(tmp_path) == [
        (
            "ok",
            '2 GPUs (NVIDIA H100 80GB HBM3, 86 GB, Tesla P100, 17 GB); precision "auto" is fp32',
        ),
        (
            "note",
            ANY,
        ),
        ("problem", f"{SECOND}: no kernels"),
    ]
