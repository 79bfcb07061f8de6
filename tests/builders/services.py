"""A real server of the service on a free port, in a thread of the tests, and clients that ask it."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from servers import free_port

from ablate.serve.app import create_app
from ablate.serve.config import Config
from ablate.serve.server import make
from ablate.store import layout

JSON = {"Content-Type": "application/json"}
TOML = {"Content-Type": "application/toml"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def mistakes(self):
        assert self.headers["content-type"] == "application/problem+json"
        return self.json["mistakes"]


class Client:
    """Somebody who asks the service, one connection a request."""

    def __init__(self, port, **headers):
        self.port, self.headers = port, headers
        self.api = "/api/v1"

    def __call__(self, method, path, body=None, /, **headers):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        names = {name.replace("_", "-"): value for name, value in (self.headers | headers).items()}
        connection.request(method, path, body, names, encode_chunked="Transfer-Encoding" in names)
        answer = connection.getresponse()
        told = Answer(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        )
        connection.close()
        return told

    def get(self, path, **headers):
        return self("GET", self.api + path, **headers)

    def post(self, path, body=b"", **headers):
        return self("POST", self.api + path, body, **(TOML if isinstance(body, str) else JSON), **headers)

    def events(self, path, **headers) -> "Events":
        return Events(self, self.api + path, headers)


class Events:
    """A stream of events, as a browser reads it."""

    def __init__(self, client, path, headers):
        self.connection = HTTPConnection("127.0.0.1", client.port, timeout=120)
        names = {name.replace("_", "-"): value for name, value in (client.headers | headers).items()}
        self.connection.request("GET", path, headers=names)
        self.answer: HTTPResponse = self.connection.getresponse()

    def next(self):
        """Return the next event: its id, its name, its content; None at the end of the stream."""
        fields = {}
        while line := self.answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                return fields["id"], fields["event"], json.loads(fields["data"])
        return None

    def until(self, wanted):
        while (event := self.next()) is not None:
            if wanted(event):
                return event
        raise AssertionError("the stream has ended")

    def close(self):
        self.answer.close()
        self.connection.close()


@contextmanager
def serving(folder: Path, token=None, **config):
    """Yield a client of a service on a store; it has the token, if there is one."""
    store = layout.open_store(folder)
    server = make(create_app(store, Config(**config), token=token), host="127.0.0.1", port=free_port())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the service has ended"
        assert time.monotonic() < end, "the service does not start"
        time.sleep(0.01)
    client = Client(server.config.port, **({"Authorization": f"Bearer {token}"} if token else {}))
    client.server = server
    try:
        yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the service does not end"
