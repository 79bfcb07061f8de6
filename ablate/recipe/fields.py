"""One training run: its fields with their defaults, its canonical form, its identity and its random streams.

Everything that can change a result is a field here, and nothing else is: device, workers, paths, labels and
the study's name are outside by construction. Defaults exist once: in the sections, most of which stand beside
the table of their names.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from ablate.recipe import augmentations, networks, optimizers, schedules
from ablate.recipe.augmentations import Augment, ColorJitter
from ablate.recipe.datasets import Data, MeanStd
from ablate.recipe.networks import Model
from ablate.recipe.optimizers import Optimizer
from ablate.recipe.schedules import Schedule
from ablate.recipe.section import Need, Section, is_optional

__all__ = [
    "Augment", "ColorJitter", "Data", "Evaluation", "MeanStd", "Model", "Optimizer", "Recipe", "Schedule",
    "Section",
    "Training", "fields", "is_active", "is_option", "is_optional", "nested", "section_type", "short", "value",
]  # fmt: skip

OPTIONS = "model.options"
_OPTION = FieldInfo(annotation=bool | int | float | str)


class Training(Section):
    """The loop."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(128, ge=2)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Szegedy et al. 2016, section 7."""
    early_stopping: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better one by `monitor`; none: never."""
    monitor: Literal["accuracy", "loss"] = "accuracy"
    """By which metric of the validation images an epoch is the best: the other decides between equal ones."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest L2 norm of the whole gradient; none: not clipped."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast with fp32 weights. `auto` is settled before a job gets its identity: bf16 where the
    hardware has it."""
    threads: int = Field(1, ge=1, le=256)
    """CPU threads of a job. It changes the order of sums, hence the last bits, hence it is part of the
    identity."""
    compile: bool | Literal["graph"] = False
    """torch.compile of the training step: half a minute before the first one (`time/compile_seconds`),
    0.9-1.2x the speed on a CPU. "graph", on a GPU alone: not compiled, but launched as one CUDA graph."""


class Evaluation(Section):
    """How a trained model is evaluated. Cells that differ only here share one training."""

    select: Literal["last", "best_validation"] = "last"
    """The weights that are evaluated: after the last epoch, or of the best one by `training.monitor`."""
    mc_dropout: int = Field(0, ge=0, le=1000)
    """Passes with dropout left on whose probabilities are averaged (Gal and Ghahramani 2016); 0: one usual
    pass."""
    tta: Literal["none", "flip", "flip_logits"] = "none"
    """Test-time augmentation: `flip` averages the probabilities of each image and its mirror image,
    `flip_logits` what the network says before they are made of it."""
    train: bool = False
    """Evaluate the images that were trained on, too, without augmentation: `fit/accuracy`, `fit/loss` and
    `gap/accuracy`, what the test images lack of it. Takes about a third of an epoch."""


class Recipe(Section):
    """Everything that decides the numbers of one training run but its seed."""

    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    optimizer: Optimizer = Optimizer.model_validate({})
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for needs, name in (
            (self.evaluation.select == "best_validation", 'evaluation.select = "best_validation"'),
            (self.training.early_stopping is not None, "training.early_stopping"),
        ):
            if needs and self.data.validation == 0:
                raise ValueError(
                    f"{name} needs validation images, and data.validation is 0: set data.validation, such "
                    "as 0.1"
                )
        augment = self.augment
        if (
            augment.crop == "random_crop"
            and augment.padding_mode == "reflect"
            and augment.padding >= self.data.image_size
        ):
            size = self.data.image_size
            raise ValueError(
                f"augment.padding must be below data.image_size to be mirrored, got {augment.padding} and "
                f"{size}"
            )
        model = self.model
        if model.pretrained and not networks.has_weights(model.name):
            raise ValueError(
                "model.pretrained needs a network of torchvision or fusion, and there are no weights of "
                f"{model.name}"
            )
        if model.pretrained and networks.has_stem(model.name) and model.stem != "imagenet":
            raise ValueError(
                'model.pretrained needs model.stem = "imagenet": the weights are of those first layers'
            )
        if not model.batch_norm and model.name in networks.WITHOUT_BATCH_NORM:
            raise ValueError(f"model.batch_norm = false has nothing to remove: {model.name} has no BatchNorm")
        return self


_MONITOR = Need(lambda recipe: recipe.data.validation != 0, (("data.validation", "> 0"),))
NEEDS = (
    augmentations.NEEDS | networks.NEEDS | optimizers.NEEDS | schedules.NEEDS | {"training.monitor": _MONITOR}
)
ACTIVE = {path: need.holds for path, need in NEEDS.items()}
"""Fields that only matter beside others. Where one does not, it is no part of the identity, and no factor
of the cell."""
BELONGS = {path: need.words for path, need in NEEDS.items()}
"""What `ACTIVE` asks of other fields, in words."""


class Fields(dict[str, FieldInfo]):
    """The fields by their paths. It also has each option of a network, which it does not list."""

    def __contains__(self, path: object) -> bool:
        """Whether there is such a field."""
        return super().__contains__(path) or is_option(path)

    def __missing__(self, path: str) -> FieldInfo:
        """Return what an option may be."""
        if is_option(path):
            return _OPTION
        raise KeyError(path)

    def get(self, path: str, default: Any = None) -> Any:
        """Return a field; the default where there is none."""
        return super().get(path, _OPTION if is_option(path) else default)


def is_option(path: object) -> bool:
    """Whether a path is that of an option of a network, such as `model.options.depth`."""
    return (
        isinstance(path, str) and path.startswith(f"{OPTIONS}.") and path[len(OPTIONS) + 1 :].isidentifier()
    )


def fields() -> Fields:
    """Return every field by its dotted path, such as `augment.crop`, in the order of the file."""
    listed = {
        f"{section}.{name}": info
        for section, part in Recipe.model_fields.items()
        for name, info in section_type(part).model_fields.items()
    }
    return Fields(listed)


def nested(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return fields by their paths as the tables that they are in."""
    tables: dict[str, dict[str, Any]] = {}
    for path, given in flat.items():
        *parents, name = path.split(".")
        here: dict[str, Any] = tables
        for parent in parents:
            here = here.setdefault(parent, {})
        here[name] = given
    return tables


def short(path: str) -> str:
    """Return what a field is called where one can tell: its last part, or the section of a `name`."""
    *_, section, last = path.split(".")
    return section if last == "name" else last


def section_type(info: FieldInfo) -> type[Section]:
    """Return the class of one section of a recipe."""
    assert isinstance(info.annotation, type)
    assert issubclass(info.annotation, Section)
    return info.annotation


def value(recipe: Recipe, path: str) -> Any:
    """Read a field by its dotted path."""
    if is_option(path):
        return networks.option(recipe.model, path.rpartition(".")[2])
    section, name = path.split(".")
    return getattr(getattr(recipe, section), name)


def is_active(recipe: Recipe, path: str) -> bool:
    """Whether a field can change this recipe's result at all."""
    if is_option(path):
        return networks.takes(recipe.model.name, path.rpartition(".")[2])
    return path not in ACTIVE or ACTIVE[path](recipe)
