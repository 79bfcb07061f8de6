"""Requests that nobody would think of, made from the description of the interface: none makes it fail."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from services import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(done):
    with serving(done[0] / "store") as asked:
        yield asked


def test_no_request_within_or_beside_the_description_makes_the_service_fail(client):
    schemathesis = pytest.importorskip("schemathesis")

    @schemathesis.serializer("application/toml")
    def toml(_context, content):
        return content if isinstance(content, bytes) else str(content).encode(errors="replace")

    base = f"http://127.0.0.1:{client.port}"
    schema = schemathesis.openapi.from_url(f"{base}/api/v1/openapi.json")
    seen = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if not operation.path.endswith("/events"):  # these never end
            hammer(operation, base, seen)
    assert len(seen) == 20
    assert 200 in seen["GET /api/v1/studies/{study}/status"]
    assert 422 in seen["POST /api/v1/plan"]


def hammer(operation, base, seen):
    few = settings(
        max_examples=12, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None
    )

    @few
    @given(case=operation.as_strategy(), is_there=st.booleans())
    def ask(case, is_there):
        if is_there and "study" in case.path_parameters:
            case.path_parameters["study"] = "tiny"
        answer = case.call(base_url=base, timeout=120)
        seen.setdefault(operation.label, set()).add(answer.status_code)
        assert answer.status_code < 500, (answer.text, case.as_curl_command())
        if answer.status_code >= 400:
            assert answer.json()["mistakes"], case.as_curl_command()

    ask()
