"""What a strategy may still ask for: the shortest way to its end, the longest, and likely ones."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from optnas.samplers._batches import Candidate
from optnas.spaces import Architecture

COURSES = 48
"""How many likely ways are drawn where chance has a part in them."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Trials that a strategy may still ask for, all of a kind.

    Args:
        phase: What they are for, in a word.
        trials: How many there are.
        epochs: Epochs of each; None leaves them to the study's training.
        architecture: A network such as they train; None for any of the space.
    """

    phase: str
    trials: int
    epochs: int | None = None
    architecture: Architecture | None = None


Course = Sequence[Stretch]
"""A way that a search may go from where it stands to its end."""


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What is ahead of a search that comes to an end by itself.

    Args:
        least: A course with the fewest trials.
        most: A course with the most trials.
        likely: Courses that are equally likely.
    """

    least: Course
    most: Course
    likely: Sequence[Course]

    @classmethod
    def settled(cls, *stretches: Stretch) -> "Outlook":
        """Of a search whose trials are known beforehand."""
        course = tuple(stretch for stretch in stretches if stretch.trials > 0)
        return cls(course, course, (course,))


def in_stretches(candidates: Iterable[tuple[Candidate, Architecture]]) -> Course:
    """A course, from the candidates of it and their networks."""

    def kind(pair: tuple[Candidate, Architecture]) -> tuple[str, int | None, Architecture]:
        candidate, architecture = pair
        return candidate.phase, candidate.params.get("epochs"), architecture

    return tuple(
        Stretch(phase, len(list(group)), epochs, architecture)
        for (phase, epochs, architecture), group in itertools.groupby(candidates, kind)
    )
