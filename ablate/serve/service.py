"""What all parts of the web service share: the store, what it says, its queue, its events."""

from collections.abc import Collection
from typing import Any

from ablate.errors import StoreError
from ablate.serve.board import MissingError
from ablate.serve.events import Events
from ablate.serve.results import Results
from ablate.store.layout import Store
from ablate.store.queue import Entry
from ablate.workflow import queue


class Service:
    """A store, served."""

    def __init__(self, store: Store, networks: Collection[str] = ()) -> None:
        """Take a store, and the names of the own networks that studies may use which come over HTTP."""
        self.store, self.networks = store, list(networks)
        self.results = Results(store)
        self.events = Events(self.results, self.entries)

    def entries(self) -> list[dict[str, Any]]:
        """Return the submissions, as JSON has them."""
        return [entry.model_dump(mode="json") for entry in queue.entries(self.store)]

    def entry(self, identity: str) -> Entry:
        """Return a submission. Raises a MissingError where there is none."""
        try:
            return queue.entry(self.store, identity)
        except StoreError as error:
            raise MissingError(str(error)) from None

    async def preview(self, text: str, sets: list[str]) -> Any:
        """Return what a run of a text would do. Raises a StudyError with all its mistakes."""
        return await self.results.checker.ask("preview", text=text, sets=sets, networks=self.networks)

    async def look(self, text: str, sets: list[str]) -> Any:
        """Return the same, and in words which effects it can see."""
        return await self.results.checker.ask("look", text=text, sets=sets, networks=self.networks)

    async def submit(self, text: str, **of: Any) -> Any:
        """Put a text into the queue, and return its submission. Raises a StudyError with all its mistakes."""
        return await self.results.checker.ask("submit", text=text, networks=self.networks, **of)

    async def close(self) -> None:
        """End what follows, and the processes beside the service."""
        self.events.close()
        await self.results.close()
