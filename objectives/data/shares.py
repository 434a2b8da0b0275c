"""How many images of every class make a part of a set."""

from collections.abc import Sequence

import numpy as np

from optnas.objectives.data.errors import DataError


def quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How ``count`` images are shared out over classes: by largest remainders, one at least.

    Args:
        sizes: The images of every class, one or more.
        count: The images of all classes together.

    Raises:
        DataError: If ``count`` is less than one image per class or more than there are.
    """
    if not len(sizes) <= count <= sizes.sum():
        raise DataError(
            f"Cannot choose {count} of {sizes.sum()} images of {len(sizes)} classes: at least "
            "one image per class and at most all of them."
        )
    result, remainders = np.divmod(sizes * count, sizes.sum())
    # A class raised to one image has more than its share, so it comes last for the remainders.
    remainders[result == 0] = 0
    result = np.maximum(1, result)
    # Raising small classes to one image may have given out too many: take from large classes.
    while result.sum() > count:
        result[np.argmax(result)] -= 1
    order = np.argsort(-remainders, kind="stable")
    result[order[: count - result.sum()]] += 1
    return result


def held_out(sizes: np.ndarray, count: int, names: Sequence[object]) -> np.ndarray:
    """How ``count`` images are shared out over classes, each of which keeps one more.

    Args:
        sizes: The images of every class, one or more.
        count: The images of all classes together.
        names: What the classes are called.

    Raises:
        DataError: If some class has no image left on one side.
    """
    total, classes = int(sizes.sum()), len(sizes)
    if not classes <= count <= total - classes:
        raise DataError(
            f"Cannot hold out {count} of {total} images of {classes} classes: hold out at least "
            f"{classes} and at most {max(0, total - classes)}, so that every class keeps an image "
            "on both sides."
        )
    held = quotas(sizes, count)
    lonely = np.flatnonzero(held >= sizes)
    if len(lonely):
        raise DataError(
            f"Holding out {count} of {total} images leaves none of class {names[lonely[0]]} to "
            "train on: hold out fewer images or add some of this class."
        )
    return held
