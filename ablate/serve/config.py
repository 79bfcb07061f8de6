"""The configuration of a service, `ablate.toml`: what only whoever runs it may say."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ablate.errors import AblateError
from ablate.messages import unknown
from ablate.recipe import networks as known_networks
from ablate.store import files
from ablate.store.layout import Store

USUAL = "ablate.toml"
Event = Literal["decided", "finished", "failed", "stalled"]
EVENTS: tuple[Event, ...] = ("decided", "finished", "failed", "stalled")
OURS = frozenset(
    ("--store", "--set", "--replace", "--retry-failed", "--wait", "--json", "--tasks", "--detach")
)
"""Options of a run that the dispatcher gives, or that it could do nothing with."""


class Table(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _own(name: str) -> str:
    if known_networks.OWN.fullmatch(name) is None:
        raise ValueError(f'must be networks of your own, such as "mynets:wide", got "{name}"')
    return name


class Submit(Table):
    """What studies may use that come over HTTP."""

    networks: tuple[Annotated[str, AfterValidator(_own)], ...] = ()
    """Networks of your own by name; their modules are installed, or lie where the service is started."""


def _options(options: tuple[str, ...]) -> tuple[str, ...]:
    refused = [word for word in options if word.partition("=")[0] in OURS]
    if refused:
        raise ValueError(f"must not have {', '.join(refused)}: the service gives these itself")
    return options


class Run(Table):
    """How studies are run."""

    options: Annotated[tuple[str, ...], AfterValidator(_options)] = ()
    """Options of every `ablate run`, such as ["--device", "cpu"]."""
    restarts: int = Field(10, ge=0)
    """A run whose process is killed, as where memory ran out, starts again so often, and fails then."""


def _address(url: str) -> str:
    if re.match(r"https?://[^/\s]+", url) is None:
        raise ValueError("must be an address that begins with https:// or http://")
    return url


class Receiver(Table):
    """Who is told."""

    kind: Literal["webhook", "slack", "discord"] = "webhook"
    url: Annotated[str, AfterValidator(_address)] | None = None
    url_file: str | None = None
    """A file that has the address: whoever knows it can write there, so it is a secret."""
    events: tuple[Event, ...] = EVENTS

    @model_validator(mode="after")
    def _whole(self) -> "Receiver":
        if (self.url is None) == (self.url_file is None):
            raise ValueError("needs one of url and url_file")
        return self

    def address(self) -> str:
        """Return the address. Raises an AblateError where its file has none."""
        if self.url is not None:
            return self.url
        try:
            return _address(Path(str(self.url_file)).expanduser().read_text().strip())
        except (OSError, ValueError) as error:
            raise AblateError(f"{self.url_file}: must have an address, and cannot be used: {error}") from None


def _time(text: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", text) is None:
        raise ValueError(f'must be a time such as "90s", "10m" or "2h", got "{text}"')
    return text


class Notify(Table):
    """Notifications."""

    to: tuple[Receiver, ...] = ()
    allow_private: bool = False
    """Whether addresses of private networks, and of this machine, may be told."""
    stalled: Annotated[str, AfterValidator(_time)] = "30m"
    """A running study has stalled when nothing of it has moved for so long."""

    @property
    def stalled_seconds(self) -> float:
        """The same in seconds."""
        return float(self.stalled[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[self.stalled[-1]]


class Config(Table):
    """The whole configuration."""

    hosts: tuple[str, ...] = ()
    """Names by which the service is asked, besides those of its machine."""
    url: Annotated[str, AfterValidator(_address)] | None = None
    """Its address for people, for the links in notifications and in MLflow."""
    mlflow: Annotated[str, AfterValidator(_address)] | None = None
    """The address of MLflow's pages on the store, where somebody shows them: every page links there."""
    submit: Submit = Field(default_factory=Submit)
    run: Run = Field(default_factory=Run)
    notify: Notify = Field(default_factory=Notify)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that studies may use which come over HTTP."""
        return self.submit.networks


def read(store: Store, path: Path | None = None) -> Config:
    """Return the configuration of a file, by default of the one beside the store; the usual one without any.

    Raises an AblateError with all mistakes.
    """
    file = store.path.parent / USUAL if path is None else path
    if path is None and not files.is_there(file):
        return Config()
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AblateError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise AblateError(f"{file}: is not TOML: {error}") from None
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise AblateError("\n".join(f"{file}: {_sentence(part)}" for part in error.errors())) from None


def _sentence(wrong: object) -> str:
    """Return one of pydantic's mistakes as ours are: where, and what must hold."""
    assert isinstance(wrong, dict)
    *above, last = wrong["loc"] or ("",)
    where = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in (*above, last)).lstrip(".")
    if wrong["type"] == "extra_forbidden":
        return f"{where}: {unknown(str(last), 'a key there', _keys(above))}"
    return f"{where}: {wrong['msg'].removeprefix('Value error, ')}"


def _keys(above: list[str | int]) -> list[str]:
    tables: dict[tuple[str, ...], type[Table]] = {
        (): Config, ("submit",): Submit, ("run",): Run, ("notify",): Notify, ("notify", "to"): Receiver,
    }  # fmt: skip
    return list(tables[tuple(one for one in above if isinstance(one, str))].model_fields)
