"""Which image is in which split: a function of the image, and recorded for ever."""

import dataclasses
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from optnas.objectives.data.errors import DataError, some
from optnas.objectives.data.names import SPLITS
from optnas.objectives.data.shares import held_out, quotas
from optnas.units import plural

TRAIN, VALIDATION, TEST = range(3)
OPEN = 255
"""A split that nobody has said yet."""
TEST_SHARE = 0.2
_FEW = 5
"""Images of a class that are too few to judge by."""

ROWS = np.dtype(
    [
        *(("content", "S32"), ("samples", "S32"), ("name", "S32"), ("label", "<u4")),
        *(("split", "u1"), ("gone", "?")),
    ]
)
"""An image: digests of its bytes, of its decoded samples and of its name in the data set, its
class, its split (0 training, 1 validation, 2 test), and whether it is not there any more."""


@dataclasses.dataclass(frozen=True, eq=False)
class Membership:
    """Every image that a study has seen, with its class and its split.

    Args:
        rows: (N,) of `ROWS`.
        class_names: One name per class.
    """

    rows: np.ndarray
    class_names: tuple[str, ...]

    def encoded(self) -> bytes:
        """The rows as compressed bytes."""
        buffer = io.BytesIO()
        np.save(buffer, self.rows, allow_pickle=False)
        return zlib.compress(buffer.getvalue())

    @classmethod
    def decoded(cls, content: bytes, class_names: tuple[str, ...]) -> "Membership":
        """What `encoded` gave.

        Raises:
            ValueError: If it is something else.
        """
        try:
            # A row in a million bytes is worth reading, a bomb is not.
            inflated = zlib.decompressobj().decompress(content, 1000 * (len(content) + 1024))
            rows = np.load(io.BytesIO(inflated), allow_pickle=False)
        except (zlib.error, EOFError, OSError, ValueError) as error:
            raise ValueError(f"no list of images: {error}") from None
        if rows.dtype != ROWS or rows.ndim != 1:
            raise ValueError("no list of images")
        if len(rows) and (rows["split"].max() > TEST or rows["label"].max() >= len(class_names)):
            raise ValueError("a list of images with unknown splits or classes")
        return cls(rows, class_names)

    def joined(self, before: "Membership | None") -> "Membership":
        """This one, and the images of an earlier one that are not there any more."""
        if before is None or before.class_names != self.class_names:
            return self
        gone = before.rows[~np.isin(before.rows["content"], self.rows["content"])].copy()
        gone["gone"] = True
        return Membership(np.concatenate((self.rows, gone)), self.class_names)

    def splits_of(self, wanted: Sequence[int]) -> dict[bytes, int]:
        """The split of every digest, of bytes or of samples; the first of the wanted ones."""
        known: dict[bytes, int] = {}
        for split in sorted(wanted, reverse=True):
            rows = self.rows[self.rows["split"] == split]
            for key in ("samples", "content"):
                known.update(dict.fromkeys(rows[key].tolist(), split))
        return known


@dataclasses.dataclass(frozen=True)
class Shares:
    """How many images of every class are in a split: a fraction, a number of all, or none."""

    test: float
    validation: int | float


def divide(
    rows: np.ndarray,
    class_names: tuple[str, ...],
    shares: Shares,
    seed: int,
    known: Membership | None,
    remarks: list[str],
) -> np.ndarray:
    """Divide the images whose split is open, class by class, by what they hold.

    A class's images stand in the order of a hash: its test images are the first by a hash that is
    the same for every study, so that no study learns from what another is tested by; its
    validation images are the first of the rest by a hash that depends on the seed. So one image
    more in a folder moves one image at most over either border. Identical images stay together,
    and an image that the study knows stays where it was.

    Args:
        rows: (N,) of `ROWS`; the splits of some may be said already.
        class_names: The names of the classes.
        shares: How many images are held out.
        seed: The seed of the study.
        known: What the study has seen before.
        remarks: Where to say what could not be as asked.

    Returns:
        (N,) splits.

    Raises:
        DataError: If a class is too small to be in every split.
    """
    splits = rows["split"].copy()
    is_open = splits == OPEN
    wanted = [
        TRAIN,
        *([TEST] if shares.test else []),
        *([VALIDATION] if shares.validation else []),
    ]
    twins = known.splits_of(wanted) if known is not None else {}
    for index in np.flatnonzero(is_open):
        before = twins.get(rows["content"][index], twins.get(rows["samples"][index], OPEN))
        splits[index] = before
    sizes = np.bincount(rows["label"][is_open], minlength=len(class_names))
    _check_sizes(sizes, class_names, shares)
    tests = np.array([_share(shares.test, int(size)) for size in sizes])
    held = _validation_counts(sizes - tests, class_names, shares)
    keys = rows["samples"].copy()
    same: list[str] = []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(is_open & (rows["label"] == label))
        if 0 < len(np.unique(keys[members])) < len(wanted):
            same.append(name)
            keys[members] = [b"%s %d" % (keys[i][:20], n) for n, i in enumerate(members)]
        _take(keys, splits, members, TEST, int(tests[label]), "test split", twins)
        order_of = f"validation split {seed}"
        _take(keys, splits, members, VALIDATION, int(held[label]), order_of, twins)
        splits[members[splits[members] == OPEN]] = TRAIN
        twins.update(zip(rows["samples"][members].tolist(), splits[members].tolist(), strict=True))
    remarks += _remarks(sizes, same, class_names)
    _check_divided(rows["label"][is_open], splits[is_open], class_names, wanted, known, remarks)
    return splits


def _remarks(sizes: np.ndarray, same: list[str], class_names: tuple[str, ...]) -> Iterator[str]:
    """What is to be said of small classes and of those whose images are the same."""
    small = [
        f"{name} ({size})"
        for name, size in zip(class_names, sizes.tolist(), strict=True)
        if 0 < size < _FEW
    ]
    if small:
        yield f"classes with very few images to divide: {some(small)}"
    if same:
        yield (
            f"{some(same)}: fewer different images than splits, so identical ones are trained "
            "on and tested by"
        )


def _take(
    keys: np.ndarray,
    splits: np.ndarray,
    members: np.ndarray,
    split: int,
    count: int,
    order_of: str,
    twins: dict[bytes, int],
) -> None:
    """Put images of a class into a split until it has ``count``; twins go together or not."""
    open_ones = members[splits[members] == OPEN]
    groups: dict[bytes, list[int]] = {}
    for index in open_ones:
        groups.setdefault(keys[index], []).append(int(index))
    for samples in [samples for samples in groups if samples in twins]:
        splits[groups.pop(samples)] = twins[samples]  # As in the class before.
    count -= int((splits[members] == split).sum())
    order = sorted(groups, key=lambda samples: _place(order_of, samples))
    left = count
    for samples in order:
        if left <= 0:
            return
        if len(groups[samples]) <= left:
            splits[groups[samples]] = split
            left -= len(groups[samples])
    if left == count > 0 and len(order) > 1:  # Too many of all of them: the least too many.
        splits[groups[min(order, key=lambda samples: len(groups[samples]))]] = split


def _place(order_of: str, samples: bytes) -> bytes:
    return hashlib.sha256(order_of.encode() + b"\0" + samples).digest()


def narrowed(
    rows: np.ndarray, splits: np.ndarray, split: int, count: int, seed: int
) -> np.ndarray:
    """The indices of ``count`` images of a split, ascending: of every class its share."""
    members = np.flatnonzero(splits == split)
    labels, sizes = np.unique(rows["label"][members], return_counts=True)
    chosen = []
    for label, quota in zip(labels, quotas(sizes, count), strict=True):
        own = members[rows["label"][members] == label]
        places = [_place(f"samples {seed}", samples) for samples in rows["samples"][own]]
        order = sorted(range(len(own)), key=lambda i: (places[i], i))
        chosen.append(own[order[:quota]])
    return np.sort(np.concatenate(chosen))


def _share(share: float, size: int) -> int:
    """That share of the images of a class, rounded, but at least one."""
    return 0 if not share or not size else max(1, int(share * size + 0.5))


def _check_sizes(sizes: np.ndarray, class_names: tuple[str, ...], shares: Shares) -> None:
    parts = 1 + bool(shares.test) + bool(shares.validation)
    too_small = [
        f"{name} ({size})"
        for name, size in zip(class_names, sizes.tolist(), strict=True)
        if 0 < size < parts
    ]
    if too_small:
        raise DataError(
            f"These classes have too few images for {parts} splits, each of which needs one of "
            f"every class: {some(too_small)}. Add images, leave the classes out with `classes`, "
            "or say the splits with folders or a table (`labels`)."
        )


def _validation_counts(
    sizes: np.ndarray, class_names: tuple[str, ...], shares: Shares
) -> list[int]:
    """Validation images of every class, of ``sizes`` that are no test images."""
    asked = shares.validation
    if isinstance(asked, float) or not asked:
        return [_share(asked, int(size)) for size in sizes]
    present = np.flatnonzero(sizes > 0)
    counts = np.zeros(len(sizes), int)
    counts[present] = held_out(sizes[present], asked, [class_names[i] for i in present])
    return [int(count) for count in counts]


def _check_divided(
    labels: np.ndarray,
    splits: np.ndarray,
    class_names: tuple[str, ...],
    wanted: list[int],
    known: Membership | None,
    remarks: list[str],
) -> None:
    """Refuse a class that has no image in one of the splits, unless the study knows why."""
    present = np.bincount(labels, minlength=len(class_names)) > 0
    for split in wanted:
        sizes = np.bincount(labels[splits == split], minlength=len(class_names))
        lonely = [class_names[place] for place in np.flatnonzero(present & (sizes == 0))]
        if not lonely:
            continue
        if known is not None and split != TRAIN:
            remarks.append(f"there is no {SPLITS[split]} image of {some(lonely)}")
            continue
        raise DataError(
            f"There would be no {SPLITS[split]} image of {some(lonely)}: identical images stay "
            "together, and known ones where they were. Add images, leave the classes out with "
            "`classes`, or say the splits with folders or a table (`labels`)."
        )


def differences(before: Membership, after: Membership) -> list[str]:
    """How the images, classes and labels differ, a line for every kind of difference."""
    return list(_differences(before, after))


def _differences(before: Membership, after: Membership) -> Iterator[str]:
    old_names, new_names = before.class_names, after.class_names
    gone = [name for name in old_names if name not in new_names]
    come = [name for name in new_names if name not in old_names]
    if gone or come:
        yield f"classes: {some(gone) or 'none'} became {some(come) or 'none'}"
    elif old_names != new_names:
        yield "classes: in another order"
    old, new = (membership.rows[~membership.rows["gone"]] for membership in (before, after))
    more = Counter(new["content"].tolist())
    more.subtract(old["content"].tolist())
    added = {content for content, number in more.items() if number > 0}
    lost = {content for content, number in more.items() if number < 0}
    changed = _changed(old, new, lost, added)
    count_more = sum(number for number in more.values() if number > 0) - changed
    count_fewer = -sum(number for number in more.values() if number < 0) - changed
    for number, what in ((count_more, "more"), (count_fewer, "fewer")):
        if number:
            yield f"{plural(number, 'image')} {what}"
    if changed:
        yield f"{plural(changed, 'image')} changed"
    yield from _moves(Membership(old, old_names), Membership(new, new_names))


def _changed(old: np.ndarray, new: np.ndarray, lost: set[bytes], added: set[bytes]) -> int:
    """How many files have their name, and hold another image."""
    contents = dict(zip(old["name"].tolist(), old["content"].tolist(), strict=True))
    pairs = zip(new["name"].tolist(), new["content"].tolist(), strict=True)
    return sum(content in added and contents.get(name) in lost for name, content in pairs)


def _moves(before: Membership, after: Membership) -> Iterator[str]:
    """Known images whose class, or whose split where the data set says it, is another one."""
    where: dict[bytes, set[tuple[str, int]]] = {}
    for content, label, split in before.rows[["content", "label", "split"]].tolist():
        where.setdefault(content, set()).add((before.class_names[label], split))
    labels = moved = 0
    examples: Counter[str] = Counter()
    for content, label, split in after.rows[["content", "label", "split"]].tolist():
        was, name = where.get(content), after.class_names[label]
        if was is None:
            continue
        if name not in {old for old, _ in was}:
            labels += 1
            examples[f"{min(was)[0]} to {name}"] += 1
        elif (name, split) not in was:
            moved += 1
            examples[f"{SPLITS[min(was)[1]]} to {SPLITS[split]}"] += 1
    ranked = sorted(examples.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{text} {number:,}" for text, number in ranked[:3])
    if labels:
        yield f"{plural(labels, 'label')} moved ({shown})"
    elif moved:
        yield f"{plural(moved, 'image')} in another split ({shown})"
