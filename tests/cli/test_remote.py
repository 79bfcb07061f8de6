"""Commands that ask a service say the same, and end the same, as beside its store."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner
from commands import TINY
from services import serving

from ablate.cli import main
from ablate.store import layout
from ablate.workflow import queue

TOKEN = "a-token-that-is-long-enough"


def call(*arguments, **environment):
    result = CliRunner(env=environment).invoke(main, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def store(done, tmp_path_factory):
    folder, _ = done
    return shutil.copytree(folder / "store", tmp_path_factory.mktemp("served") / "mlruns")


@pytest.fixture(scope="module")
def address(store):
    with serving(store, TOKEN) as client:
        yield f"http://127.0.0.1:{client.port}"


@pytest.fixture
def remote(address, monkeypatch):
    """Return a function that runs a command with the service as its default."""
    monkeypatch.setenv("ABLATE_TOKEN", TOKEN)
    monkeypatch.setenv("ABLATE_SERVER", address)
    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "tiny"), ("status", "tiny", "--json"), ("status", "--json"), ("status", "tiny", "--watch"),
        ("logs", "tiny:batch_norm=true/0"), ("logs", "tiny:batch_norm=true/0", "-f"),
        ("report", "tiny", "--json"), ("report", "tiny", "--format", "md"),
        ("report", "tiny", "--format", "csv", "--metric", "test/loss"),
        ("check", "tiny"), ("check", "tiny", "--json", "--strict"), ("queue",), ("queue", "--json"),
        ("status", "nothing"), ("logs", "nothing"), ("check", "nothing"), ("report", "nothing", "--json"),
        ("cancel", "77"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_says_the_same_as_beside_the_store(remote, store, arguments):
    here = call(*arguments, "--store", store)
    assert remote(*arguments) == here


@pytest.mark.slow
def test_a_study_is_submitted_and_changed_from_afar(remote, store, tmp_path):
    study = tmp_path / "far.toml"
    study.write_text(TINY.replace('"tiny"', '"far"'))
    code, shown, _ = remote("submit", study, "--set", "seeds=3", "--priority", "2", "--key", "k", "--json")
    entry = json.loads(shown)
    assert (code, entry["study"], entry["sets"], entry["priority"]) == (0, "far", ["seeds=3"], 2)
    local = queue.entry(layout.open_store(store), entry["id"])
    assert json.loads(local.model_dump_json()) == entry
    again = remote("submit", study, "--set", "seeds=3", "--priority", "2", "--key", "k", "--json")
    assert again == (0, shown, "")
    for action, state in (("pause", "paused"), ("resume", "waiting"), ("cancel", "cancelled")):
        assert remote(action, entry["id"]) == (0, f"{entry['id']}  far: {state}\n", "")
    study.write_text(TINY.replace("epochs = 3", "epochs = -3").replace("cnn4", "cnn5"))
    code, shown, error = remote("submit", study)
    assert (code, shown) == (2, "")
    assert "training.epochs" in error
    assert "cnn5" in error
    study.write_text(TINY.replace('name = "cnn4"', 'name = "mine:net"'))
    assert "code of your own" in remote("submit", study)[2]


@pytest.mark.slow
def test_a_page_is_an_address_or_a_file(remote, address, tmp_path):
    assert remote("report", "tiny") == (0, f"{address}/studies/tiny/report\n", "")
    path = tmp_path / "page.html"
    assert remote("report", "tiny", "--out", path) == (0, f"{path}\n", "")
    assert "<html" in path.read_text()


@pytest.mark.slow
def test_who_has_no_token_is_told_what_to_do(address, store, tmp_path):
    code, _, error = call("queue", ABLATE_SERVER=address)
    assert (code, "set ABLATE_TOKEN" in error) == (2, True)
    path = tmp_path / "secret"
    path.write_text(f"{TOKEN}\n")
    assert call("queue", ABLATE_SERVER=address, ABLATE_TOKEN_FILE=str(path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--server", "http://127.0.0.1:9"), "cannot be reached: Connection refused: is the service up?"),
        (("--server", "ftp://x"), "must be an address such as http://127.0.0.1:8080, got ftp://x"),
        (("--server", "http://127.0.0.1:9", "--store", "x"), "--server and --store are two places"),
    ],
)
def test_a_service_that_is_not_there_is_one_sentence(arguments, says):
    code, shown, error = call("queue", *arguments)
    assert (code, shown) == (2, "")
    assert says in error


def test_a_store_that_is_named_goes_before_the_variable(here):
    assert call("queue", "--store", here.path, ABLATE_SERVER="http://127.0.0.1:9")[0] == 0


def test_options_of_a_store_are_refused_for_a_service():
    code, _, error = call("status", "tiny", "--seeds", "3", "--server", "http://127.0.0.1:9")
    assert code == 2
    assert "--seeds cannot be used with --server" in error


class Strange(BaseHTTPRequestHandler):
    """A server that sends its callers, with their token, elsewhere."""

    seen = ()

    def do_GET(self):
        Strange.seen += (self.headers.get("Authorization"),)
        if self.path.startswith("/elsewhere"):
            self.send_response(200)
        else:
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_redirect_is_not_followed(tmp_path):
    with HTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        code, _, error = call("queue", "--server", address, ABLATE_TOKEN=TOKEN)
        server.shutdown()
    assert (code, error) == (2, f"{address}: answered with 302: is it a service of ablate?\n")
    assert Strange.seen == (f"Bearer {TOKEN}",)
