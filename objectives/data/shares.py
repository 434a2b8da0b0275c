"""How many images of every class make a part of a set."""

import numpy as np


def quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """How ``count`` images are shared out over classes: by largest remainders, one at least."""
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
