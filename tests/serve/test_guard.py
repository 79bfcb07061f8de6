"""The door: who may, from where, with what; and that nothing gets past it, however it is asked."""

import json
import socket
import stat
import time

import pytest
from commands import TINY
from services import TOML, serving

from ablate.errors import AblateError
from ablate.serve import guard, tokens
from ablate.serve.tokens import Keys, Patience
from ablate.store import layout

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("open") / "store") as asked:
        yield asked


@pytest.fixture(scope="module")
def locked(done):
    with serving(done[0] / "store", TOKEN, hosts=("ablate.example",)) as asked:
        yield asked


@pytest.fixture
def stranger(locked):
    """Return a client without the token, whose earlier mistakes are forgotten."""
    locked.server.config.app.patience._wrong.clear()
    return type(locked)(locked.port)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "[::1", "10.0.0.7"]
)
def test_a_name_that_was_bent_to_this_address_is_refused(host, client):
    assert client.get("/studies", Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:9", "LOCALHOST"])
def test_its_own_names_are_let_in(host, client):
    assert client.get("/studies", Host=host).status == 200


def test_with_a_token_addresses_and_names_of_the_configuration_are_let_in(locked):
    for host in ("10.0.0.7:80", "ablate.example", socket.gethostname()):
        assert locked.get("/studies", Host=host).status == 200
    assert locked.get("/studies", Host="evil.example").status == 421


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
     {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}],
)  # fmt: skip
def test_a_page_of_another_site_changes_nothing(headers, client):
    assert client.post("/queue", TINY, Host="localhost", **headers).status == 403
    assert client.get("/queue").json == []


def test_without_the_token_nothing_is_told(stranger):
    for path in ("/studies", "/studies/tiny/status", "/openapi.json", "/queue", "/nothing", "/logs?job=a"):
        answer = stranger.get(path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "store" not in answer.text
    assert stranger.post("/queue", TINY).status == 401
    assert stranger.get("/health").status == 200


def test_wrong_tokens_are_waited_for_and_the_right_one_as_well(stranger):
    for _ in range(tokens.GUESSES):
        assert stranger.get("/studies", Authorization="Bearer wrong").status == 401
    answer = stranger.get("/studies", Authorization=f"Bearer {TOKEN}")
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= tokens.WINDOW + 1


def test_patience_comes_back_and_a_household_of_ipv6_is_one_guest():
    now = [0.0]
    patience = Patience(lambda: now[0])
    for last in range(tokens.GUESSES):
        patience.note(f"2001:db8:1:2::{last}")
    assert patience.wait("2001:db8:1:2::ffff") > 0
    assert patience.wait("2001:db8:1:3::1") == 0
    now[0] = tokens.WINDOW + 1
    assert patience.wait("2001:db8:1:2::ffff") == 0


def test_a_session_is_ours_whole_and_not_over():
    now = [1e9]
    keys = Keys(TOKEN, lambda: now[0])
    session = keys.session()
    assert keys.is_session(session)
    end, number, signature = session.split(".")
    forged = [
        f"{int(end) + 1}.{number}.{signature}",
        f"{end}.x.{signature}",
        f"{end}.{number}.{signature[:-1]}",
        f"{end}.{number}.",
        Keys("another-token-of-somebody").session(),
        f"{session}0",
        "",
        "..",
        "\xff",
    ]
    assert [keys.is_session(text) for text in forged] == [False] * len(forged)
    now[0] += tokens.SESSION
    assert not keys.is_session(session)


def test_a_token_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("ABLATE_TOKEN", raising=False)
    store = layout.open_store(tmp_path / "store")
    token, is_new = tokens.get(store)
    assert is_new
    assert len(token) >= 32
    assert stat.S_IMODE((tmp_path / "store/token").stat().st_mode) == 0o600
    assert tokens.get(store) == (token, False)
    monkeypatch.setenv("ABLATE_TOKEN", "one-that-was-chosen")
    assert tokens.get(store) == ("one-that-was-chosen", False)
    monkeypatch.setenv("ABLATE_TOKEN", "short")
    with pytest.raises(AblateError, match="at least 16"):
        tokens.get(store)
    monkeypatch.delenv("ABLATE_TOKEN")
    (tmp_path / "store/token").chmod(0o644)
    with pytest.raises(AblateError, match="others can read it"):
        tokens.get(store)


def test_a_body_is_bounded_whether_its_length_is_told_or_not(client):
    long = "#" * (guard.LONGEST_BODY + 1)
    assert client.post("/plan", long).status == 413
    parts = iter([long[:1000].encode()] * 1100)
    unnamed = client("POST", "/api/v1/queue", parts, Transfer_Encoding="chunked", **TOML)
    assert unnamed.status == 413
    assert client.post("/plan", "#" * guard.LONGEST_BODY).status == 422
    assert client.get("/queue").json == []


def test_a_length_of_10_mb_is_refused_before_a_byte_of_it_was_sent(client):
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        head = ("POST /api/v1/queue HTTP/1.1", "Host: localhost", "Content-Type: application/toml")
        connection.sendall("\r\n".join((*head, f"Content-Length: {10 << 20}", "", "")).encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "text", ["a" + "=[" * 100_000, "[" + "a." * 10_000 + "b]", "x = " + "[" * 5_000 + "]" * 5_000]
)
def test_deep_toml_is_a_sentence(text, client):
    answer = client.post("/plan", text)
    assert answer.status == 422
    assert len(answer.mistakes) >= 1


def test_bytes_that_are_no_text_and_addresses_without_end_are_sentences(client):
    assert client("POST", "/api/v1/plan", b"\xff\xfe", Content_Type="application/toml").status == 422
    assert client.get(f"/studies/{'a' * 9000}/status").status == 414
    assert client.post("/queue/00001/move", json.dumps({"priority": 10**30}).encode()).status == 422
    assert client.post("/queue/00001/move", b"[" * 100_000).status == 400


def test_every_answer_forbids_what_a_page_of_ours_never_does(client):
    for path in ("/studies", "/nothing", "/studies/nope/status"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.slow
def test_a_thousand_slow_connections_keep_nobody_out(client):
    slow = []
    try:
        for _ in range(1000):
            connection = socket.create_connection(("127.0.0.1", client.port))
            connection.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: local")
            slow.append(connection)
        for _ in range(20):
            assert client.get("/studies").status == 200
        assert len(client.server.server_state.connections) <= 520
        end = time.monotonic() + 60
        while client.server.server_state.connections:
            assert time.monotonic() < end, "slow connections are kept for ever"
            time.sleep(0.2)
    finally:
        for connection in slow:
            connection.close()
