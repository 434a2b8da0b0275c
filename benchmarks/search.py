"""The published macro-micro search on CIFAR-10, replayed as real trainings beside the plain loop.

    python benchmarks/search.py --trace FILE [--data FOLDER] [--device cuda] --output FILE

The trace is the log of the authors' search, 86 evaluations of 1,042 epochs: depth, width, epochs,
and which layers are convolutions or have 5x5 kernels. The product trains every evaluation as it
was; the plain loop trains an epoch of it, which stands for each. An epoch before that does not
count. Stopped, the same command goes on after the last evaluation.

On a CPU it is scaled down: 256 images, one epoch of every evaluation.
"""

import functools
import json
from pathlib import Path
from typing import Any

from _harness import Cases, Row, Turn, arguments, contest, measure, row
from epoch import Network, images_of, part, plain, product, training_arguments

from optnas.spaces import ChainArchitecture

IMAGES = 256
SEARCH = "CIFAR10-tiny"


def network_of(evaluation: dict[str, Any]) -> Network:
    """The network of a line of the trace."""
    layers = range(evaluation["depth"])
    architecture = ChainArchitecture(
        evaluation["depth"],
        evaluation["width"],
        tuple("conv" if i in evaluation["conv"] else "separable" for i in layers),
        tuple(5 if i in evaluation["k5"] else 3 for i in layers),
    )
    return architecture, {}


def compared(evaluation: dict[str, Any], options: Any) -> Row:
    """One evaluation, in seconds of all its epochs."""
    small = options.device == "cpu"
    images, kind = images_of("cifar10", options.data, whole=not small)
    if small:
        images = part(images, IMAGES, IMAGES // 4)
    epochs = 1 if small else evaluation["epochs"]
    what = (network_of(evaluation), images, options.device)
    with contest(
        (product, *what, options.threads, options.precision), (plain, *what, options.rival_threads)
    ) as (ours, theirs):
        ours(), theirs()
        seconds = sum(ours().seconds for _ in range(epochs))
        rival = epochs * theirs().seconds
    notes = {"epochs": epochs, "images": f"{len(images.train_images)}, {kind}"}
    return row([Turn(seconds)], [Turn(rival)], **notes)


def cases(options: Any) -> Cases:
    """Every evaluation."""
    evaluations = json.loads(options.trace.read_text())[SEARCH]["evaluations"]
    for number, evaluation in enumerate(evaluations):
        size = f"{evaluation['phase']}, depth {evaluation['depth']}, width {evaluation['width']}"
        yield f"{number}: {size}; plain loop", functools.partial(compared, evaluation, options)


def main() -> None:
    """Measure what was not yet, and add up."""
    parser = arguments(__doc__)
    parser.add_argument("--trace", type=Path, required=True, help="The authors' log, as JSON.")
    training_arguments(parser)
    options = parser.parse_args()
    rows = measure(cases(options), options.output, options.device).values()
    ours, theirs = sum(each.product for each in rows), sum(each.rival for each in rows)
    print(f"\nThe search: {ours:.0f} s, the plain loop {theirs:.0f} s, ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
