"""What a trained network is and how good, as a page for people."""

import json
from collections.abc import Mapping

from optnas.objectives.kept.descriptions import Description, EnsembleDescription
from optnas.objectives.kept.judgement import Interval, Judgement
from optnas.objectives.kept.preprocessing import Preprocessing
from optnas.trials.metric import metric
from optnas.units import plural, shown

_SHOWN_CLASSES = 100
_SHOWN_CONFUSION = 20


def card(name: str, d: Description) -> str:
    """A page about the network in the folder ``name``, in Markdown."""
    if d.is_face:
        return face_card(name, d)
    origin = "\n".join(f"| {name} | {value} |" for name, value in d.origin.items())
    train = ", ".join(f"{name} {value}" for name, value in d.train.items())
    unseen = _unseen(d.chosen_by_test)
    height_width = " x ".join(str(side) for side in d.input_shape[1:])
    return f"""# Image classifier found by architecture search

Test {_searched(d)}accuracy **{d.test_accuracy:.4f}** on {d.test_images} images {unseen}
{_judged(d.judgement)}
| | |
|---|---|
| input | {d.input_shape[0]} channels, {height_width} pixels{_made(d.preprocessing)} |
| classes | {len(d.class_names)}: {", ".join(d.class_names)} |
| parameters | {d.params:,} |
| multiply-adds per image | {d.multiply_adds:,} |
| trained | {plural(d.epochs, "epoch")} on {d.train_images} images, {d.train_seconds:.0f} s |
| training accuracy, augmented images | {d.train_accuracy:.4f} |
{origin}

Architecture, in the space `{d.space}`:

```json
{json.dumps(d.architecture)}
```

Training: {train}, seed {d.seed}. Versions: {d.versions}.

```python
import optnas

model = optnas.load({name!r})  # this folder
model.predict("photo.jpg")  # a file, a folder, a picture or an array, of any size
logits = model(images)  # uint8, shape (N, {", ".join(map(str, d.input_shape))})
```
{_by_class(d.judgement)}"""


def face_card(name: str, d: Description) -> str:
    """A page about the face network in the folder ``name``, in Markdown."""
    origin = "\n".join(f"| {name} | {value} |" for name, value in d.origin.items())
    tests = "\n".join(
        f"| {each} | {metrics_text(answers)} |" for each, answers in d.verification.items()
    )
    thresholds = ", ".join(f"{value:.4f} at {far}" for far, value in d.thresholds.items())
    channels, height, width = d.input_shape
    return f"""# Face network found by architecture search

| tested with | |
|---|---|
{tests}

Nobody in these tests was learnt from. Two faces are taken for one person's from a score (inner
product) upwards; by the false accept rate it is {thresholds or "not known"}.

| | |
|---|---|
| input | aligned faces, {channels} channels, {height} x {width} pixels |
| output | embeddings of length 1 |
| parameters | {d.params:,} |
| multiply-adds per image, once for the image and once for its mirror image | {d.multiply_adds:,} |
| trained | {plural(d.epochs, "epoch")} on {d.train_images} images of \
{len(d.class_names)} people, {d.train_seconds:.0f} s |
{origin}

Architecture, in the space `{d.space}`:

```json
{json.dumps(d.architecture)}
```

Training: {d.train}, seed {d.seed}. Versions: {d.versions}.

{_face_example(name, d.input_shape)}"""


def _face_example(name: str, shape: tuple[int, ...]) -> str:
    """How a face network is used."""
    return f"""```python
import optnas

model = optnas.load({name!r})  # this folder
model.similarity("one.jpg", "other.jpg")  # score, threshold, and whether they are the same
model.predict("face.jpg").vector  # an embedding; of a folder, a list of them
embeddings = model(images)  # uint8, shape (N, {", ".join(map(str, shape))})
```
"""


def metrics_text(answers: Mapping[str, float]) -> str:
    """What a test set gave, on one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in answers.items())


def ensemble_card(name: str, d: EnsembleDescription) -> str:
    """A page about the ensemble in the folder ``name``, in Markdown."""
    members = "\n".join(
        f"| [{number}]({number}/README.md) | {accuracy:.4f} |"
        for number, accuracy in enumerate(d.member_accuracies, start=1)
    )
    return f"""# Ensemble of image classifiers found by architecture search

Test accuracy **{d.test_accuracy:.4f}** on {d.test_images} images {_unseen(d.chosen_by_test)}
{_judged(d.judgement)}
The answer is the mean of the probabilities of {len(d.member_accuracies)} networks with together
{d.params:,} parameters and {d.multiply_adds:,} multiply-adds per image.

| network | test accuracy alone |
|---|---|
{members}

```python
import optnas

model = optnas.load({name!r})  # this folder
model.predict("photo.jpg")  # a file, a folder, a picture or an array, of any size
```
{_by_class(d.judgement)}"""


def _searched(d: Description) -> str:
    """What the search maximised, of the test images, where that is not their accuracy."""
    key = d.origin.get("metric")
    value = None if d.judgement is None or not isinstance(key, str) else d.judgement.value(key)
    return "" if key is None or value is None else f"{metric(key).name} **{value:.4f}**, "


def _unseen(chosen_by_test: bool) -> str:
    if chosen_by_test:
        return "by which the search\nchose the network: too good to be a test accuracy."
    return "that neither the search nor the\ntraining saw, measured once."


def _made(preprocessing: Preprocessing | None) -> str:
    if preprocessing is None:
        return ""
    how = {"squash": "squashed", "crop": "cropped in the middle", "pad": "padded"}
    red, green, blue = preprocessing.background
    fraction = preprocessing.fraction
    part = "" if fraction == 1 else f" to {fraction:g} of their sides"
    return (
        f"; pictures of other sizes are {how[preprocessing.resize]}{part}, on "
        f"#{red:02x}{green:02x}{blue:02x} where they are transparent"
    )


def _judged(j: Judgement | None) -> str:
    """The figures of all classes together."""
    if j is None:
        return ""
    rows = [f"| accuracy | {j.accuracy:.4f} | {_between(j.accuracy_interval)} |"]
    if j.top_5 is not None and j.top_5_interval is not None:
        rows.append(
            f"| among the 5 most probable | {j.top_5:.4f} | {_between(j.top_5_interval)} |"
        )
    rows += [
        f"| balanced accuracy | {j.balanced_accuracy:.4f} | |",
        f"| macro-F1 | {j.macro_f1:.4f} | |",
        f"| accuracy of naming the largest class | {j.chance:.4f} | |",
    ]
    guess = "\n**A guess could have this accuracy.**\n" if j.is_chance else ""
    table = "\n".join(rows)
    return f"{guess}\n| {j.images} images | | 95 % interval |\n|---|---|---|\n{table}\n"


def _by_class(j: Judgement | None) -> str:
    """The figures of single classes, what is taken for what, and the worst mistakes."""
    if j is None:
        return ""
    lines = ["", "## By class", "", "| class | images | precision | recall | F1 |"]
    lines.append("|---|---|---|---|---|")
    for c in j.classes[:_SHOWN_CLASSES]:
        found = "" if c.recall_interval is None else f" ({_between(c.recall_interval)})"
        lines.append(
            f"| {_cell(c.name)} | {c.images} | {c.precision:.4f} | {c.recall:.4f}{found} "
            f"| {c.f1:.4f} |"
        )
    if len(j.classes) > _SHOWN_CLASSES:
        lines.append(f"\nThe other {len(j.classes) - _SHOWN_CLASSES} are in the JSON beside.")
    return "\n".join([*lines, *_confused(j), *_mistaken(j), ""])


def _confused(j: Judgement) -> list[str]:
    if len(j.classes) > _SHOWN_CONFUSION:
        return []
    names = [_cell(c.name) for c in j.classes]
    lines = ["", "What was taken for what: a row is a class, a column what it was called.", ""]
    lines += [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, row in zip(names, j.confusion, strict=True):
        lines.append(f"| {name} | {' | '.join(map(str, row))} |")
    return lines


def _mistaken(j: Judgement) -> list[str]:
    if not j.mistakes:
        return []
    lines = ["", "The surest mistakes:", "", "| image | class | called | probability |"]
    lines.append("|---|---|---|---|")
    for m in j.mistakes:
        cells = map(_cell, (str(m.image), m.label, m.named))
        lines.append(f"| {' | '.join(cells)} | {m.probability:.4f} |")
    return lines


def _between(bounds: Interval) -> str:
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}"


def _cell(text: str) -> str:
    """A name that ends no cell and no line of a table."""
    return shown(text).replace("|", "\\|")
