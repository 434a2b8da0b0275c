"""What a search maximises, and how that is called wherever it is shown."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """What the values of a study's trials are.

    Args:
        key: Its name in study files.
        name: Its name in texts.
        heading: Its name above a column, in eight characters.
    """

    key: str
    name: str
    heading: str

    @property
    def title(self) -> str:
        """Its name at the beginning of a line."""
        return self.name[:1].upper() + self.name[1:]


ACCURACY = Metric("accuracy", "accuracy", "accuracy")
"""What objectives maximise that do not say."""

_KNOWN = {
    each.key: each
    for each in (
        ACCURACY,
        Metric("balanced_accuracy", "balanced accuracy", "bal.acc."),
        Metric("macro_f1", "macro-F1", "macro-F1"),
        Metric("top_5", "top-5 accuracy", "top-5"),
        Metric("rank1", "rank-1 rate", "rank-1"),
        Metric("tar", "true accept rate", "TAR"),
    )
}


def metric(key: str) -> Metric:
    """That of a name in study files; one of an objective of one's own is called by its name."""
    name = "".join(c if c.isprintable() else "?" for c in key).replace("_", " ")
    return _KNOWN.get(key, Metric(key, name, name[:8]))
