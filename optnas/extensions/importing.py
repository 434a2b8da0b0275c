"""The one importer of what a study names: entry points, and ``module:Name`` of a user's own.

Nothing is imported before it is asked for. An installed module is never hidden by a file beside
the study, whatever the current folder is.
"""

import contextlib
import difflib
import importlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from optnas.errors import UserError

#: ``module:Name`` as third parties are named.
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class PluginError(UserError):
    """A sampler, pruner, objective, space or data set that does not exist or cannot be used."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None if there is nothing like it."""
    by_folded = {other.casefold().replace("-", "_"): other for other in valid}
    folded = name.casefold().replace("-", "_")
    matches = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    return by_folded[matches[0]] if matches else None


def unknown(what: str, name: str, valid: Collection[str], *, hint: str = "") -> str:
    """The sentence that refuses ``name``: the nearest valid name, and all of them."""
    match = nearest(name, valid)
    suggestion = f"; did you mean {match!r}?" if match else "."
    known = f"Known: {', '.join(sorted(valid))}" if valid else "None is known"
    return f"unknown {what} {name!r}{suggestion} {known}{hint}"


def entry_names(group: str) -> list[str]:
    """The names in a group of entry points, sorted."""
    return sorted({entry.name for entry in entry_points(group=group)})


def is_entry_imported(group: str, name: str) -> bool:
    """Whether the module that a name in a group of entry points stands for is imported."""
    return any(entry.module in sys.modules for entry in entry_points(group=group, name=name))


def load_entry(what: str, group: str, name: str) -> Any:
    """What a name in a group of entry points stands for, or None if there is no such name.

    Args:
        what: What it should be, for messages: ``"sampler"``.
        group: The group.
        name: The name.

    Raises:
        PluginError: If several packages offer it, or it cannot be imported.
    """
    entries = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not entries:
        return None
    if len(entries) > 1:
        choices = " and ".join(sorted(entries))
        raise PluginError(f"several packages offer the {what} {name!r}; say which: {choices}")
    return _imported(what, next(iter(entries.values())))


def load_part(name: str) -> Any:
    """What optnas itself offers by an entry point, as it has torch with it: ``load``, ``export``.

    Raises:
        UserError: If the installation lacks it.
    """
    part = load_entry("part", "optnas.networks", name)
    if part is None:
        raise UserError("this installation of optnas is not whole: install it again")
    return part


def load_reference(what: str, name: str, folder: Path | None) -> Any:
    """What ``module:Name`` stands for.

    Args:
        what: What it should be, for messages.
        name: The reference.
        folder: Where modules are looked for that are not installed: the study file's folder.

    Raises:
        PluginError: If it is no reference, or it cannot be imported.
    """
    if not REFERENCE.fullmatch(name):
        raise PluginError(f"{name!r} is not of the form `module:Name`")
    with contextlib.nullcontext() if folder is None else modules_of(folder):
        return _imported(what, EntryPoint(name, name, ""))


def make_importable(folder: Path) -> None:
    """Have the modules of a study's folder be found later too, after everything else.

    The methods of a class may import its neighbours when they run.
    """
    if os.path.abspath(folder) not in map(os.path.abspath, sys.path):
        sys.path.append(os.path.abspath(folder))


@contextlib.contextmanager
def modules_of(folder: Path) -> Iterator[None]:
    """Have imports find the modules of a study's folder, after everything that is installed.

    Python puts the current folder, or that of a script, before all else; inside, such an entry
    comes last, where it hides nothing.

    Args:
        folder: The study file's folder.
    """
    before, own, here = list(sys.path), os.path.abspath(folder), os.getcwd()
    late = {own, here} if before and os.path.abspath(before[0]) == here else {own}
    first = [entry for entry in before if os.path.abspath(entry) not in late]
    sys.path[:] = [*first, own, *(entry for entry in before if entry not in first)]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = [*before, *(p for p in sys.path if p not in before and p != own)]


def _imported(what: str, entry: EntryPoint) -> Any:
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"the {what} {entry.name!r} cannot be imported: no module {error.name!r} among the "
            "installed packages or in the study file's folder"
        ) from error
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the {what} {entry.name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, entry.attr)
    except AttributeError:
        match = nearest(entry.attr, [n for n in vars(module) if not n.startswith("_")])
        raise PluginError(
            f"the module {entry.module!r} has no {entry.attr!r}"
            + (f"; did you mean {match!r}?" if match else "")
        ) from None
