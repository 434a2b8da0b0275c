"""What was read of a data set, as a value: said before the first trial, kept with the study."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optnas.objectives.data.decoding import FACTS, FRAMES, ROTATED, TRANSPARENT, Framing
from optnas.objectives.data.errors import DataError, some
from optnas.objectives.data.membership import Membership, differences
from optnas.objectives.data.names import SPLITS
from optnas.units import plural, shown

IMBALANCE = 5.0
"""The largest class has so many times the images of the smallest before that is said."""
_NO_LABEL = ("nan", "<na>", "n/a", "null")
_SIZES = 4
_KEPT_SIZES = 20


@dataclasses.dataclass(frozen=True)
class Twins:
    """Images with the same decoded samples.

    Args:
        within: How many have a twin in their split.
        across: How many of the validation and test images have one in another split.
        labels: How many have one in another class.
        examples: Names of some, of which each has a twin.
    """

    within: int = 0
    across: int = 0
    labels: int = 0
    examples: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a data set, and how.

    Args:
        name: The data set.
        place: Its folder or function.
        class_names: The classes, in order.
        counts: Images per class, for ``train``, ``validation`` and ``test``.
        shape: Channels, height and width of what the network sees.
        sizes: Width, height and how many images have them, the most frequent ones first.
        further_sizes: How many other pairs of width and height there are.
        size_range: Least and greatest width, least and greatest height.
        modes: How many images have which mode, by Pillow's names, or type of array.
        framing: How images of other sizes become that shape, in words.
        left_out: What was not taken, a line for every reason.
        unreadable: The files that cannot be read, each with why.
        converted: What was converted, a line for every kind.
        remarks: What was understood that could have been meant otherwise, and what to mind.
        preparation: How files become the images that the network sees, as JSON values: fields of
            `optnas.objectives.kept.preprocessing.Preprocessing`.
        twins: Identical images.
        digest: Of all images and their classes, wherever they are and in whatever split.
        membership: Every image with its split; None for data sets that are known by name.
    """

    name: str
    place: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    shape: tuple[int, int, int]
    digest: str
    sizes: tuple[tuple[int, int, int], ...] = ()
    further_sizes: int = 0
    size_range: tuple[int, int, int, int] | None = None
    modes: dict[str, int] = dataclasses.field(default_factory=dict)
    framing: str = ""
    left_out: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    converted: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    preparation: dict[str, Any] = dataclasses.field(default_factory=dict)
    twins: Twins = Twins()
    membership: Membership | None = dataclasses.field(default=None, compare=False, repr=False)

    def fields(self) -> dict[str, Any]:
        """The same as JSON values, without the single images."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "membership"
        }
        return {**values, "twins": dataclasses.asdict(self.twins), "lines": self.lines()}

    def record(self) -> dict[str, Any]:
        """What is kept with a study: `fields`, and the bytes of the list of images."""
        images = None if self.membership is None else self.membership.encoded()
        return {**self.fields(), "images": images}

    def differences(self, known: Mapping[str, Any]) -> list[str]:
        """How the images differ from those of an earlier `record`.

        Raises:
            DataError: If that is damaged.
        """
        if known.get("digest") == self.digest:
            return []
        before = membership_of(known)
        if before is None or self.membership is None:
            return self._by_counts(known)
        return differences(before, self.membership) or ["the images are in another order"]

    def _by_counts(self, known: Mapping[str, Any]) -> list[str]:
        """Where single images are not known."""
        if tuple(known.get("class_names") or ()) != self.class_names:
            return [f"classes: {some(known.get('class_names') or ())} became "
                    f"{some(self.class_names)}"]  # fmt: skip
        counts = known.get("counts") or {}
        lines = []
        for split in SPLITS:
            was, now = sum(counts.get(split) or ()), sum(self.counts[split])
            if was != now:
                lines.append(f"{_WORDS[split]} images: {was:,} became {now:,}")
        return lines or ["as many images as before, with other pixels or labels"]

    def lines(self) -> list[str]:
        """The same in a few lines for people."""
        totals = [f"{sum(self.counts.get(split, ())):,} {_WORDS[split]}" for split in SPLITS]
        lines = [
            f"data {shown(self.name)!r}: {plural(len(self.class_names), 'class')}; "
            f"{', '.join(totals)} images",
            f"classes: {self._classes()}",
            self._pictures(),
        ]
        lines += [f"converted: {line}" for line in self.converted]
        lines += [f"left out: {line}" for line in self.left_out]
        if self.unreadable:
            files = (f"{shown(name)} ({reason})" for name, reason in self.unreadable)
            count = plural(len(self.unreadable), "unreadable file")
            lines.append(f"left out: {count}: {some(files, 20)}")
        twins = self.twins
        if twins.within or twins.across:
            pairs = "; ".join(f"{shown(a)} = {shown(b)}" for a, b in twins.examples[:2])
            across = f", {twins.across:,} across splits" if twins.across else ""
            labels = f", {twins.labels:,} with another class" if twins.labels else ""
            lines.append(
                f"identical images: {twins.within:,} within a split{across}{labels} ({pairs})"
            )
        return lines + [f"mind: {line}" for line in self.remarks]

    def _classes(self) -> str:
        totals = np.sum([self.counts[split] for split in SPLITS if split in self.counts], axis=0)
        pairs = zip(self.class_names, totals.tolist(), strict=True)
        return some((f"{shown(name)} {total:,}" for name, total in pairs), 12)

    def _pictures(self) -> str:
        channels, height, width = self.shape
        seen = f"{width}x{height} in {'gray' if channels == 1 else f'{channels} channels'}"
        if not self.sizes:
            return f"images: {seen}"
        sizes = ", ".join(f"{w}x{h} ({n:,})" for w, h, n in self.sizes[:_SIZES])
        further = self.further_sizes + max(0, len(self.sizes) - _SIZES)
        if further and self.size_range is not None:
            w, wide, h, high = self.size_range
            sizes = f"{further + _SIZES:,} sizes from {w}x{h} to {wide}x{high}"
        modes = ", ".join(f"{mode} {number:,}" for mode, number in self.modes.items())
        how = f", {self.framing} to" if self.framing else "; the network sees"
        return f"images: {sizes}; {modes}{how} {seen}"


def membership_of(record: Mapping[str, Any]) -> Membership | None:
    """The list of images in a `Reading.record`; None if it has none.

    Raises:
        DataError: If it is damaged.
    """
    if record.get("images") is None:
        return None
    names = tuple(str(name) for name in record.get("class_names") or ())
    try:
        return Membership.decoded(record["images"], names)
    except (ValueError, TypeError) as error:
        raise DataError(f"What the study has recorded of its data is damaged: {error}.") from None


_WORDS = {"train": "training", "validation": "validation", "test": "test"}


def digest_of(membership: Membership) -> str:
    """Digest of all images with their classes, in no order."""
    rows = membership.rows
    labels = np.array(
        [hashlib.sha256(n.encode()).hexdigest()[:16] for n in membership.class_names]
    )
    lines = np.sort(np.char.add(rows["content"], labels.astype("S16")[rows["label"]]))
    return hashlib.sha256(np.ascontiguousarray(lines).tobytes()).hexdigest()


def split_counts(
    labels: np.ndarray, splits: np.ndarray, classes: int
) -> dict[str, tuple[int, ...]]:
    """Images per class in every split."""
    return {
        name: tuple(np.bincount(labels[splits == split], minlength=classes).tolist())
        for split, name in enumerate(SPLITS)
    }


def twins_of(rows: np.ndarray, splits: np.ndarray, names: Sequence[str]) -> Twins:
    """The identical images among ``rows``."""
    _, inverse, sizes = np.unique(rows["samples"], return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    doubled = np.flatnonzero(sizes[inverse] > 1)
    groups: dict[int, list[int]] = {}
    for index in doubled:
        groups.setdefault(int(inverse[index]), []).append(int(index))
    within = across = labels = 0
    examples: list[tuple[bool, str, str]] = []
    for members in groups.values():
        where = Counter(splits[members].tolist())
        within += sum(number for number in where.values() if number > 1)
        across += sum(number for split, number in where.items() if split > min(where))
        labels += len(members) if len(set(rows["label"][members].tolist())) > 1 else 0
        last = next((i for i in members[1:] if splits[i] != splits[members[0]]), members[1])
        pair = shown(names[members[0]]), shown(names[last])
        examples.append((len(where) < 2, *pair))
    examples.sort()
    return Twins(within, across, labels, tuple((a, b) for _, a, b in examples[:20]))


def sizes_and_modes(facts: np.ndarray) -> dict[str, Any]:
    """How often which width and height, and which mode, occur in `FACTS`; the frequent first."""
    assert facts.dtype == FACTS
    pairs = Counter(zip(facts["width"].tolist(), facts["height"].tolist(), strict=True))
    modes = Counter(mode.decode() for mode in facts["mode"].tolist())
    sizes = tuple((w, h, number) for (w, h), number in pairs.most_common(_KEPT_SIZES))
    return {
        "sizes": sizes,
        "further_sizes": max(0, len(pairs) - _KEPT_SIZES),
        "size_range": tuple(
            int(extreme) for key in ("width", "height") for extreme in _range(facts[key])
        ),
        "modes": dict(modes.most_common()),
    }


def _range(values: np.ndarray) -> tuple[int, int]:
    return int(values.min()), int(values.max())


def conversions(facts: np.ndarray, framing: Framing, channels: int) -> list[str]:
    """What decoding changed, a line for every kind."""
    flags = facts["flags"]
    colour = f"#{bytes(framing.background).hex()}"
    below = {"#ffffff": "white", "#000000": "black"}.get(colour, colour)
    lines = []
    for flag, text in (
        (TRANSPARENT, f"with transparency put on {below}"),
        (FRAMES, "with several frames, of which the first was taken"),
        (ROTATED, "turned as EXIF says"),
    ):
        number = int(((flags & flag) != 0).sum())
        if number:
            lines.append(f"{plural(number, 'image')} {text}")
    modes = Counter(mode.decode() for mode in facts["mode"].tolist())
    target = "gray" if channels == 1 else "RGB"
    same = ("L",) if channels == 1 else ("RGB",)
    others = {m: n for m, n in modes.items() if m not in same and m[0] not in "IF"}
    if others:
        kinds = ", ".join(f"{mode} {number:,}" for mode, number in others.items())
        lines.append(f"to {target}: {kinds}")
    return lines


def concerns(class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> list[str]:
    """What to mind of classes: their names, where they have no images, and how they differ.

    Args:
        class_names: One name per class.
        counts: Images per class in every split.
    """
    lines = []
    alike: dict[str, list[str]] = {}
    for name in class_names:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            lines.append(
                f"the classes {some(map(repr, names))} differ in case or spaces only: if they "
                "are one, give them one name"
            )
    lines += [
        f"a class is called {shown(name)!r}: if that says that there is no label, take its "
        "images out"
        for name in class_names
        if name.casefold() in _NO_LABEL
    ]
    for split in SPLITS:
        lonely = [n for n, count in zip(class_names, counts[split], strict=True) if not count]
        if lonely and any(counts[split]):
            lines.append(f"there is no {split} image of {some(lonely)}")
    totals = np.sum([counts[split] for split in SPLITS], axis=0).tolist()
    return lines + imbalance(class_names, totals)


def imbalance(class_names: Sequence[str], totals: Sequence[int]) -> list[str]:
    """A remark where classes differ much in size."""
    if not totals or not min(totals):
        return []
    ratio = max(totals) / min(totals)
    if ratio < IMBALANCE:
        return []
    most, least = (class_names[list(totals).index(f(totals))] for f in (max, min))
    return [
        f"{shown(most)} has {ratio:.1f} times the images of {shown(least)}: accuracy counts "
        "images, not classes"
    ]
