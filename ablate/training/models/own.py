"""The user's own network: a function `package.module:function` of `classes`, `channels` and `image_size`."""

import difflib
import importlib
import inspect
from typing import Any

from torch import nn

from ablate.recipe.fields import Model
from ablate.training.surgery import ModelError

ARGUMENTS = "classes, channels and image_size"


def own(model: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """Import the function, call it with names, and see that it gives a network.

    Where modules are looked for is the caller's business.

    ModelError: no such module, no such function, other arguments, or something else returned. What the
    function itself raises is left as it is, with its traceback.
    """
    path, _, name = model.name.partition(":")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        whose = "" if path == missing or path.startswith(f"{missing}.") else f", which {path} imports"
        raise ModelError(
            f'model.name = "{model.name}" cannot be imported: there is no module {missing}{whose}'
        ) from error
    except (ImportError, SyntaxError) as error:
        raise ModelError(
            f'model.name = "{model.name}" cannot be imported: {type(error).__name__}: {error}'
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        close = difflib.get_close_matches(
            name, [other for other, part in vars(module).items() if callable(part)], n=1
        )
        meant = f" (did you mean {close[0]}?)" if close else ""
        where = module.__file__ or path
        raise ModelError(
            f'model.name = "{model.name}" must name a function, and there is none called {name} in '
            f"{where}{meant}"
        )
    arguments: dict[str, Any] = {"classes": classes, "channels": channels, "image_size": image_size}
    options = model.options.given
    if taken := arguments.keys() & options.keys():
        raise ModelError(f"model.options.{min(taken)} is what the images are: take it out")
    try:
        inspect.signature(function).bind(**arguments, **options)
    except TypeError as error:
        asked = f", those of model.options ({', '.join(options)})" if options else ""
        raise ModelError(
            f"{model.name} must take the arguments {ARGUMENTS}{asked}, by name, and nothing more: {error}"
        ) from error
    network = function(**arguments, **options)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{model.name} must return a torch.nn.Module, and returned {type(network).__name__}")
    return network
