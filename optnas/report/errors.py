"""Where a tested network errs: by class, which for which, and its worst mistakes."""

from collections.abc import Sequence

from optnas.pages.content import Block, Column, Folded, Matrix, Paragraph, Table, Thumbnails
from optnas.report.result import percent
from optnas.report.tested import Judgement, Kept

MATRIX = 20
"""Classes of a confusion matrix at most; of more the most frequent confusions are shown."""
CONFUSIONS = 20
CLASSES = 200
LONGEST = 60
"""Characters of a name at most."""


def where_it_errs(kept: Kept) -> list[Block]:
    """The confusion matrix of a network and its worst mistakes; nothing where nobody knows them.

    Args:
        kept: The network.
    """
    judgement = kept.first.judgement
    if judgement is None or not judgement.classes:
        return []
    names = [_short(each.name) for each in judgement.classes]
    blocks: list[Block] = [Paragraph(_in_words(judgement, names))]
    if len(names) <= MATRIX:
        blocks.append(
            Paragraph("Rows are the true classes, columns what the network took them for.")
        )
        blocks.append(Matrix("Confusion matrix", names, judgement.confusion))
    elif _confusions(judgement):
        blocks.append(_most_frequent(judgement, names))
    blocks.append(Folded("Every class", [_classes(judgement, names)]))
    if judgement.mistakes:
        blocks += _mistakes(judgement, kept.mistakes())
    return blocks


def _in_words(judgement: Judgement, names: Sequence[str]) -> str:
    seen = [place for place, each in enumerate(judgement.classes) if each.images]
    wrong = _confusions(judgement)
    if not wrong or not seen:
        return "It made no mistake on the test images."
    by_recall = sorted(seen, key=lambda place: -judgement.classes[place].recall)
    best, worst = (
        f"{names[place]} ({percent(judgement.classes[place].recall)} of its images)"
        for place in (by_recall[0], by_recall[-1])
    )
    count, row, column = wrong[0]
    return (
        f"It finds {best} best and {worst} worst. Its most frequent mistake is {names[row]} taken "
        f"for {names[column]}: {count:,} of {judgement.classes[row].images:,} images."
    )


def _confusions(judgement: Judgement) -> list[tuple[int, int, int]]:
    """How often, a class, and what it was taken for; the most frequent first."""
    found = [
        (count, row, column)
        for row, counts in enumerate(judgement.confusion)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(found, key=lambda each: (-each[0], each[1:]))


def _most_frequent(judgement: Judgement, names: Sequence[str]) -> Table:
    columns = [Column("class", text=True), Column("taken for", text=True), Column("images")]
    rows = [
        [names[row], names[column], f"{count:,}"]
        for count, row, column in _confusions(judgement)[:CONFUSIONS]
    ]
    return Table("The most frequent mistakes", columns, rows, titled=True, sortable=True)


def _classes(judgement: Judgement, names: Sequence[str]) -> Table:
    headings = ("test images", "precision", "recall", "F1")
    rows = [
        [name, f"{each.images:,}", *(f"{x:.4f}" for x in (each.precision, each.recall, each.f1))]
        for name, each in zip(names, judgement.classes, strict=True)
    ]
    columns = [Column("class", text=True), *map(Column, headings)]
    return Table("By class", columns, rows[:CLASSES], sortable=True)


def _mistakes(judgement: Judgement, pictures: Sequence[bytes]) -> list[Block]:
    shown = judgement.mistakes
    if pictures:
        captions = [
            f"{_short(each.label)}, taken for {_short(each.named)}, "
            f"{100 * each.probability:.0f} % sure"
            for each in shown
        ]
        said = Paragraph("The mistakes that it was surest of:")
        return [said, Thumbnails(list(zip(captions, pictures, strict=True)))]
    columns = [Column(name, text=True) for name in ("image", "class", "taken for")]
    rows = [
        [_short(str(m.image)), _short(m.label), _short(m.named), f"{m.probability:.4f}"]
        for m in shown
    ]
    title = "The mistakes that it was surest of"
    return [Table(title, [*columns, Column("probability")], rows, titled=True)]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"
