"""The user's own networks, `package.module:function`: where their code lies, and what identifies it.

Nothing is imported here.
"""

import ast
import hashlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from ablate.errors import AblateError


def folders(study: str) -> tuple[str, ...]:
    """Return where own networks are looked for: beside the study file, and last in the current directory."""
    return tuple(dict.fromkeys([study, str(Path.cwd())]))


def find(network: str, folders: tuple[str, ...]) -> Path | None:
    """Return the file of a network's module in these folders, or where Python finds its modules.

    Nothing is imported.
    """
    module, where = network.partition(":")[0], _path(folders)
    for part in module.split("."):
        # by its last name alone: with dots Python looks up the parent, which is not imported
        spec = PathFinder.find_spec(part, where)
        if spec is None:
            return None
        where = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None


def _path(folders: tuple[str, ...]) -> list[str]:
    """Return where Python is to find modules: the first of these folders, its own, and the others last.

    Others may write to the current directory, and what lies there must not pass for an installed module.
    """
    return [*folders[:1], *(folder for folder in sys.path if folder not in folders), *folders[1:]]


def names(network: str, folders: tuple[str, ...]) -> set[str] | None:
    """Return the names at the top level of a network's module, by its text.

    None where the text does not show all of them.
    """
    path = find(network, folders)
    if path is None or path.suffix != ".py":
        return None
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None
    defined: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)) and all(
            alias.name != "*" for alias in node.names
        ):
            defined |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif not isinstance(node, ast.Expr):
            return None
    return None if "__getattr__" in defined else defined  # it may give any other name


def sources(network: str, folders: tuple[str, ...]) -> dict[str, Path]:
    """Return the files of a network's code that lie in these folders, by their place there.

    They are its module, the packages around it, and what these import from there, by their texts.
    """
    there: dict[str, Path] = {}
    left, seen = [network.partition(":")[0]], set[str]()
    while left:
        module = left.pop()
        if module in seen:
            continue
        seen.add(module)
        parent = module.rpartition(".")[0]
        left += [parent] if parent else []
        path = find(module, folders)
        stem = module.replace(".", "/")
        for place in (f"{stem}.py", f"{stem}/__init__.py"):
            if path is not None and any(path == Path(folder) / place for folder in folders):
                there[place] = path
                left += _imported(path, module if place.endswith("__init__.py") else parent)
    return there


def _imported(path: Path, package: str) -> list[str]:
    """Return the modules that may be imported by a module in a package."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return []
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*filter(None, around), *([node.module] if node.module else [])])
            named += [module, *(f"{module}.{alias.name}" for alias in node.names)] if module else []
            named += [] if module else [alias.name for alias in node.names]  # from . import x
    return named


def fingerprint(network: str, folders: tuple[str, ...]) -> str:
    """Return the identity of a network's code: sha256 of its file, 64 hex digits.

    What that file imports is not covered. Raises an AblateError that says where it was looked for.
    """
    path = find(network, folders)
    if path is None:
        module = network.partition(":")[0]
        looked = " or ".join(folders)
        raise AblateError(
            f'model.name = "{network}": there is no module {module} in {looked}, nor installed: check the '
            "name"
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def allow(network: str, folders: tuple[str, ...]) -> None:
    """Let this process import a network from these folders, as `find` finds it.

    Raises an AblateError when another module of that name is there already, such as one of Python's own.
    """
    module = network.partition(":")[0]
    there = getattr(sys.modules.get(module), "__file__", None)
    path = find(network, folders)
    if there is not None and path is not None and Path(there).resolve() != path.resolve():
        raise AblateError(
            f'model.name = "{network}": {path} has the name of another module, {there}: rename it'
        )
    sys.path[:] = _path(folders)
