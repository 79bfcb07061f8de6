"""The story of `ablate predict`: pictures, and what the network of a finished run answers to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import AblateError
from ablate.execution.options import Where
from ablate.workflow import trained
from ablate.workflow.trained import Trained

if TYPE_CHECKING:
    from ablate.training.datasets.pictures import Picture
    from ablate.training.predictions import Network

AT_ONCE = 512  # pictures that are in memory
DRAWN = 60  # pictures on a sheet


@dataclass(frozen=True, slots=True)
class Share:
    """How probable a network holds a class for."""

    class_: str
    probability: float
    spread: float | None  # standard deviation over the passes with dropout; none without any


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one picture, or why there is none."""

    image: str
    answer: str | None
    probability: float | None
    top: tuple[Share, ...]
    remarks: tuple[str, ...]  # on how the file was read
    error: str


@dataclass(frozen=True, slots=True)
class Predicted:
    """What `ablate predict` answers."""

    run: str
    job: str
    evaluation: dict[str, Any]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]


def predict(
    run: str,
    paths: Sequence[Path],
    where: Where,
    *,
    top: int = 5,
    mc_dropout: int | None = None,
    sheet: bool = False,
) -> tuple[Predicted, bytes]:
    """Classify pictures with the network of a finished run; one that cannot be read has an error instead.

    `mc_dropout`: so many passes with dropout on instead of the run's own. With `sheet`, also a PNG of what
    the network saw. Raises an AblateError where there is nothing to classify, or nothing to do it with.
    """
    from ablate.training.datasets import pictures

    files, left = pictures.files_of(paths)
    own = _asked(trained.find(run, where), mc_dropout)
    device = trained.device(where)
    network, note = trained.network(own, device)
    _check_dropout(own, network)
    answers: list[Answer] = []
    drawn: list[Picture] = []
    for start in range(0, len(files), AT_ONCE):
        read = pictures.read(files[start : start + AT_ONCE], own.prepared.image_size, own.prepared.channels)
        answers += _answers(own, network, read, device, top)
        drawn += [picture for picture in read if picture.pixels is not None][: DRAWN - len(drawn)]
    notes = [line for line in (left, note, own.warning) if line]
    if sheet and sum(not answer.error for answer in answers) > DRAWN:
        notes.append(f"the first {DRAWN} pictures are drawn")
    predicted = Predicted(own.name, own.job, own.recipe.evaluation.model_dump(), tuple(answers), tuple(notes))
    return predicted, _sheet(predicted, drawn) if sheet else b""


def _asked(own: Trained, mc_dropout: int | None) -> Trained:
    """Return a run with the passes that were asked for."""
    if mc_dropout is None:
        return own
    evaluation = own.recipe.evaluation.model_copy(update={"mc_dropout": mc_dropout})
    return replace(own, recipe=own.recipe.model_copy(update={"evaluation": evaluation}))


def _check_dropout(own: Trained, network: "Network") -> None:
    from ablate.training import surgery

    if own.recipe.evaluation.mc_dropout and not surgery.dropouts(network):
        raise AblateError(
            f"--mc-dropout needs dropout in the network, and that of {own.name} has none: "
            "model.conv_dropout and model.head_dropout put it there"
        )


def _answers(
    own: Trained, network: "Network", read: "Sequence[Picture]", device: str, top: int
) -> list[Answer]:
    """Return the answer to each picture, in their order."""
    from ablate.training import predictions

    pixels = [picture.pixels for picture in read if picture.pixels is not None]
    shares, spreads = predictions.predict(network, own.recipe, own.seed, own.prepared, pixels, device)
    rows = zip(shares, spreads, strict=True)
    has_passes = own.recipe.evaluation.mc_dropout > 0
    answers = []
    for picture in read:
        if picture.pixels is None:
            answers.append(Answer(str(picture.path), None, None, (), (), picture.error))
            continue
        mean, spread = next(rows)
        best = tuple(
            Share(own.prepared.classes[k], float(mean[k]), float(spread[k]) if has_passes else None)
            for k in (-mean).argsort(kind="stable")[:top]
        )
        answers.append(
            Answer(str(picture.path), best[0].class_, best[0].probability, best, picture.remarks, "")
        )
    return answers


def _sheet(predicted: Predicted, drawn: "Sequence[Picture]") -> bytes:
    from ablate.training import gallery

    by_image = {answer.image: answer for answer in predicted.answers}
    tops = [[(s.class_, s.probability) for s in by_image[str(p.path)].top] for p in drawn]
    pixels = [picture.pixels for picture in drawn if picture.pixels is not None]
    return gallery.answered(pixels, [picture.path.name for picture in drawn], tops)
