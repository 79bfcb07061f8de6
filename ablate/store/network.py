"""model.json: a trained network, its size and its layers."""

from typing import Annotated

from pydantic import Field

from ablate.store.quantities import Count
from ablate.store.records import Record

Size = Annotated[tuple[Count, ...], Field(max_length=8)]


class Layer(Record):
    """A layer of a network, or a block of several in one row."""

    name: str  # dotted; empty: the network itself
    kind: str  # its class; empty: all the rows that are left out
    shape: Size = ()  # of its output, for one image; empty where it is not known
    parameters: Count = 0
    trainable_parameters: Count = 0
    macs: Count = 0
    layers: Count = 0  # of a block that is folded to one row


class Network(Record):
    """The network of a job. A file without layers was written by an earlier version."""

    parameters: Count | None = None
    trainable_parameters: Count | None = None
    macs: Count | None = None
    image: Size = ()  # that it was counted for: channels, height, width
    layers: tuple[Layer, ...] = ()
