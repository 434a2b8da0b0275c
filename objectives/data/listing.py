"""The files of a data set, each with its class and its split, before any of them is opened."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from optnas.objectives.data.decoding import HEIF_SUFFIXES, suffixes
from optnas.objectives.data.errors import DataError, some
from optnas.objectives.data.names import SPLITS, TRAIN, class_name, is_junk, ordered, split_of
from optnas.units import plural, shown

# What holds pictures that nobody can read here, and what helps.
_CURES = {
    **dict.fromkeys(HEIF_SUFFIXES, "pip install 'optnas[heif]'"),
    **dict.fromkeys(
        (
            *(".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".heics", ".ico", ".tga", ".psd", ".svg"),
            *(".eps", ".ps", ".pdf", ".ai", ".exr", ".hdr", ".dcm", ".nii", ".cr2", ".cr3"),
            *(".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pcx", ".xcf", ".fits", ".mat"),
        ),
        "convert them to PNG",
    ),
}
_OTHERS = "files that are no images"
_DEEPEST = 100
"""Folders in folders that are followed."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of an image.

    Args:
        path: Where it is.
        name: Its path in the data set, with slashes, which is the same wherever the set is.
        label: The name of its class.
        split: ``train``, ``validation`` or ``test``; None where the data set does not say.
    """

    path: str
    name: str
    label: str
    split: str | None = None


@dataclasses.dataclass
class Listing:
    """What was found.

    Attributes:
        entries: The files of images, sorted by class, split and name.
        class_names: The classes in order.
        left_out: What was not taken, by why, with examples.
        remarks: What was understood that could have been meant otherwise.
    """

    entries: list[Entry]
    class_names: tuple[str, ...]
    left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder and what is in it; what is none of the user's is counted elsewhere."""

    name: str
    path: str
    images: list[str]
    folders: dict[str, "Tree"]

    def every(self) -> Iterator[tuple[str, str]]:
        """Path, and path from here with slashes, of every image at any depth."""
        for name in self.images:
            yield os.path.join(self.path, name), name
        for folder in self.folders.values():
            yield from ((path, f"{folder.name}/{name}") for path, name in folder.every())

    @property
    def has_images(self) -> bool:
        """Whether there is an image at any depth."""
        return next(self.every(), None) is not None

    @property
    def classes(self) -> dict[str, "Tree"]:
        """The folders that hold images."""
        return {name: tree for name, tree in self.folders.items() if tree.has_images}


def walk(root: Path, left_out: dict[str, list[str]]) -> Tree:
    """Everything below a folder, links followed but never in a circle.

    Args:
        root: The folder.
        left_out: Where to say what was not taken.

    Raises:
        DataError: If a folder cannot be read, or they are nested more than 100 deep.
    """
    known = suffixes()

    def look(path: str, name: str, shown_as: str, above: frozenset[tuple[int, int]]) -> Tree:
        tree = Tree(name, path, [], {})
        if len(above) > _DEEPEST:
            raise DataError(f"{shown(path)}: folders are nested more than {_DEEPEST} deep.")
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror}.") from None
        for entry in entries:
            where = f"{shown_as}{entry.name}"
            if is_junk(entry.name):
                left_out.setdefault("hidden or system entries", []).append(where)
            elif _is(entry.is_dir):
                stat = entry.stat()
                place = (stat.st_dev, stat.st_ino)
                if place in above:
                    left_out.setdefault("links to a folder above", []).append(where)
                    continue
                below = look(entry.path, entry.name, f"{where}/", above | {place})
                tree.folders[entry.name] = below
            elif (suffix := os.path.splitext(entry.name)[1].lower()) in known:
                if _is(entry.is_file):
                    tree.images.append(entry.name)
                else:
                    why = "links that lead nowhere" if entry.is_symlink() else "no regular files"
                    left_out.setdefault(why, []).append(where)
            else:
                cure = _CURES.get(suffix)
                kind = suffix or "no suffix"
                why = f"{kind} files, which cannot be read here: {cure}" if cure else _OTHERS
                left_out.setdefault(why, []).append(where)
        return tree

    try:
        stat = os.stat(root)
    except OSError as error:
        raise DataError(f"{shown(root)} cannot be read: {error.strerror}.") from None
    return look(os.fspath(root), root.name, "", frozenset({(stat.st_dev, stat.st_ino)}))


def _is(asked: Callable[[], bool]) -> bool:
    """What an entry says of itself; of a link to itself nothing is true."""
    try:
        return asked()
    except OSError:
        return False


def left_out_lines(left_out: dict[str, list[str]]) -> list[str]:
    """What was left out, a line for every reason."""
    lines = []
    for reason, names in left_out.items():
        count = f"{len(names):,}"
        if reason == _OTHERS:
            kinds = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in names)
            count = ", ".join(f"{kind} {number:,}" for kind, number in kinds.most_common(5))
        lines.append(f"{reason} ({count}): {some(names, 3)}")
    return lines


def by_folders(root: Path) -> Listing:
    """The images of a folder with a folder per class, or with such folders for splits.

    The layouts are ``CLASS/...``, ``SPLIT/CLASS/...`` and ``CLASS/SPLIT/...``; below its folder an
    image of a class may be at any depth.

    Raises:
        DataError: If this is none of them, or could be two of them; the message says what was
            seen.
    """
    listing = Listing([], ())
    tree = walk(root, listing.left_out)
    splits = {name: split for name in tree.folders if (split := split_of(name)) is not None}
    if _is_a_class(tree, splits):
        (name,) = splits
        listing.remarks.append(
            f"{shown(name)!r} is taken for a class: it holds images and no folders of classes"
        )
        splits.clear()
    if splits:
        found = _split_folders(tree, splits, root, listing)
    else:
        found = _class_folders(tree, root, listing)
    if tree.images:
        listing.left_out.setdefault("images outside the folders of the classes", []).extend(
            tree.images
        )
    listing.class_names = tuple(ordered({entry.label for entry in found}))
    if len(listing.class_names) < 2:
        raise DataError(
            f"Expected a folder of images for each of two or more classes in {shown(root)}; "
            f"seen: {_seen(tree)}.{_inner(tree)}"
        )
    places = {name: place for place, name in enumerate(listing.class_names)}
    order: dict[str | None, int] = {split: place for place, split in enumerate((None, *SPLITS))}
    found.sort(key=lambda entry: (places[entry.label], order[entry.split]))
    listing.entries = found
    return listing


def _is_a_class(tree: Tree, splits: dict[str, str]) -> bool:
    """Whether the one folder named like the training split is a class, as of buses and trains."""
    if len(splits) != 1 or next(iter(splits.values())) != TRAIN:
        return False
    (name,) = splits
    others = [other for other in tree.folders if other != name]
    return not tree.folders[name].classes and len(others) >= 1 and tree.folders[name].has_images


def _split_folders(
    tree: Tree, splits: dict[str, str], root: Path, listing: Listing
) -> list[Entry]:
    _check_split_folders(tree, splits, root)
    entries: list[Entry] = []
    for name, split in splits.items():
        folder = tree.folders[name]
        if not folder.classes:
            # As test images are handed out whose classes are a secret.
            images = [f"{name}/{image}" for _, image in folder.every()]
            if images:
                listing.left_out["images without a class"] = images
            else:
                listing.remarks.append(f"{shown(name)!r} holds no images")
            continue
        listing.left_out.setdefault("images outside the folders of the classes", []).extend(
            f"{name}/{image}" for image in folder.images
        )
        for label, images_of in folder.classes.items():
            entries += [
                Entry(path, f"{name}/{label}/{image}", _label(label), split)
                for path, image in images_of.every()
            ]
    for reason in [reason for reason, names in listing.left_out.items() if not names]:
        del listing.left_out[reason]
    trained = {entry.label for entry in entries if entry.split == TRAIN}
    train = next(name for name, split in splits.items() if split == TRAIN)
    for name, split in splits.items():
        unknown = {entry.label for entry in entries if entry.split == split} - trained
        if unknown:
            raise DataError(
                f"{shown(root / name)} has classes that {shown(root / train)} lacks: "
                f"{[shown(label) for label in ordered(unknown)]}; it has "
                f"{some(ordered(trained))}."
            )
    return entries


def _check_split_folders(tree: Tree, splits: dict[str, str], root: Path) -> None:
    seen = f"seen in {shown(root)}: {_seen(tree)}"
    twice = [s for s in SPLITS if list(splits.values()).count(s) > 1]
    if twice:
        names = [name for name, split in splits.items() if split == twice[0]]
        raise DataError(
            f"{some(names)} all seem to be {twice[0]} images; {seen}. Keep one of them, or say "
            "what is what in a table (`labels`)."
        )
    others = [name for name, folder in tree.folders.items() if name not in splits]
    others = [name for name in others if tree.folders[name].has_images]
    if others:
        raise DataError(
            f"{some(splits)} look like splits, and beside them is {some(others)} with images; "
            f"{seen}. Move what is no split out of the folder, rename a class that is named like "
            "a split, or say what is what in a table (`labels`)."
        )
    train = next((name for name, split in splits.items() if split == TRAIN), None)
    if train is None:
        raise DataError(
            f"There are {some(splits)} and no training images; {seen}. Name the folder of the "
            "training images `train`."
        )
    if not tree.folders[train].classes:
        raise DataError(
            f"Expected a folder of images for each class in {shown(root / train)}; {seen}. "
            f"Images without such folders need a table (`labels`)."
        )
    inner = {split_of(name) for name in tree.folders[train].classes}
    if TRAIN in inner and None not in inner:
        raise DataError(
            f"{shown(root / train)} holds folders named like splits again: "
            f"{_seen(tree.folders[train])}; {seen}. Name the folder of the splits as `root`, or "
            "rename the classes."
        )


def _class_folders(tree: Tree, root: Path, listing: Listing) -> list[Entry]:
    empty = [name for name, folder in tree.folders.items() if not folder.has_images]
    if empty and len(tree.folders) >= 2:
        raise DataError(
            f"No images in {shown(root / empty[0])}: expected files "
            f"{', '.join(sorted(suffixes()))}.{_cures(listing, empty[0])} Remove the folder if it "
            "is no class."
        )
    merged = [label for label, n in Counter(map(_label, tree.classes)).items() if n > 1]
    if merged:
        listing.remarks.append(f"folders whose names look the same are one class: {some(merged)}")
    inner = {
        label: {name: split for name in folder.folders if (split := split_of(name)) is not None}
        for label, folder in tree.classes.items()
    }
    if any(inner.values()):
        return _inner_splits(tree, inner, root)
    entries = []
    for label, folder in tree.classes.items():
        entries += [
            Entry(path, f"{label}/{image}", _label(label)) for path, image in folder.every()
        ]
    return entries


def _inner_splits(tree: Tree, inner: dict[str, dict[str, str]], root: Path) -> list[Entry]:
    """The layout CLASS/SPLIT/..."""
    entries = []
    parts = [tree.classes[label].folders[name] for label in inner for name in inner[label]]
    below = {frozenset(part.classes) for part in parts if not part.images}
    if (
        len(inner) > 1
        and len(below) == 1
        and len(min(below)) > 1
        and not any(part.images for part in parts)
    ):
        raise DataError(
            f"The classes in {shown(root)} could be {some(inner)}, or the folders in their "
            f"splits: {some(ordered(min(below)))}. Name one of {some(inner)} as `root`, or say "
            "what is what in a table (`labels`)."
        )
    for label, splits in inner.items():
        folder = tree.classes[label]
        others = [name for name in folder.classes if name not in splits]
        names = list(splits.values())
        if others or folder.images or len(set(names)) < len(names) or TRAIN not in names:
            what = some(inner_name for splits in inner.values() for inner_name in splits)
            raise DataError(
                f"Some classes in {shown(root)} have folders named like splits ({what}), and "
                f"{shown(label)!r} is not divided so: it holds {_seen(folder)}. Divide every "
                "class, rename the folders, or say what is what in a table (`labels`)."
            )
        for name, split in splits.items():
            entries += [
                Entry(path, f"{label}/{name}/{image}", _label(label), split)
                for path, image in folder.folders[name].every()
            ]
    return entries


def _label(name: str) -> str:
    return class_name(os.fsencode(name).decode("utf-8", "backslashreplace"))


def _seen(tree: Tree) -> str:
    folders = [f"{name}/" for name in tree.folders]
    images = [plural(len(tree.images), "image")] if tree.images else []
    return ", ".join(([some(folders, 8)] if folders else []) + images) or "nothing"


def _inner(tree: Tree) -> str:
    """A hint where the classes are one folder further down."""
    if len(tree.classes) == 1:
        ((name, folder),) = tree.classes.items()
        if len(folder.classes) >= 2:
            return f" Did you mean the folder {shown(name)!r} in it as `root`?"
    if tree.images and not tree.folders:
        return " Images without folders need a table (`labels`)."
    return ""


def _cures(listing: Listing, folder: str) -> str:
    for reason, names in listing.left_out.items():
        if "cannot be read here" in reason and any(n.startswith(f"{folder}/") for n in names):
            return f" It holds {reason}."
    return ""
