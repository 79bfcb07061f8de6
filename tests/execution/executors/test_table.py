"""The table of executors: what each needs and understands is checked before anything is started."""

from dataclasses import replace

import pytest

from ablate import hardware
from ablate.errors import AblateError
from ablate.execution import executors
from ablate.execution.executors import EXECUTORS, Row
from ablate.execution.executors.base import Options


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_row_answers_its_resources_without_starting_anything(name):
    if name != "local":
        pytest.skip("it asks a cluster: its own tests have one")
    resources = executors.resources(name, Options("cpu", 3))
    assert (resources.slots, resources.device) == (3, "cpu")
    assert resources.precision == hardware.precision("cpu")
    assert executors.resources(name, Options("cpu", 3, most=2)).slots == 2
    assert set(EXECUTORS[name].options) <= set(Options.__dataclass_fields__)


def test_an_unknown_name_is_a_sentence():
    with pytest.raises(AblateError, match=r"--executor must be one of local, .*, got cloud"):
        executors.resources("cloud", Options())


def test_an_address_is_of_an_executor_that_has_addresses_and_reaches_it(monkeypatch):
    asked: list[str] = []
    local = EXECUTORS["local"]
    remote = replace(
        local, form="HOST:PORT", resources=lambda o: asked.append(o.address) or local.resources(o)
    )
    monkeypatch.setitem(EXECUTORS, "cloud", remote)
    executors.resources("cloud://here:80", Options("cpu"))
    executors.resources("cloud", Options("cpu"))
    assert asked == ["here:80", ""]
    for wrong in ("local://here:80", "cloud://", "://", ""):
        with pytest.raises(AblateError, match=r"one of .*cloud://HOST:PORT, got"):
            executors.check(wrong)


def test_what_is_not_installed_or_not_understood_is_a_sentence(monkeypatch):
    local = EXECUTORS["local"]
    away = Row(
        local.start, local.resources, ("device",), "no_such_module", 'pip install "ablate-studies[none]"'
    )
    monkeypatch.setitem(EXECUTORS, "away", away)
    with pytest.raises(
        AblateError, match=r"--executor away needs no_such_module: pip install \"ablate-studies\[none\]\""
    ):
        executors.resources("away", Options())
    monkeypatch.setitem(EXECUTORS, "away", Row(local.start, local.resources, ("device",)))
    with pytest.raises(AblateError, match="--executor away does not know --jobs-per-gpu: leave it out"):
        executors.resources("away", Options("cpu", jobs_per_gpu=2))
    assert executors.resources("away", Options("cpu")).device == "cpu"
