"""The commands on networks that were kept: `optnas predict` and `optnas export`."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from optnas.cli.console import INTERRUPTED, quiet_libraries
from optnas.cli.options import Json
from optnas.units import size

# Imported when they are needed: `optnas --help` loads neither Optuna nor torch.

Network = Annotated[
    Path, typer.Argument(metavar="NETWORK", help="A folder that `optnas retrain` wrote.")
]
_SHOWN_EVERY = 100


def predict(
    network: Network,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Images, and folders of images.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Most probable classes to name.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images answered at once.")] = 64,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table with commas.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line, for programs.")
    ] = False,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
) -> None:
    """What a network that was kept sees in images; exit code 1 if some cannot be read."""
    from optnas.errors import UserError

    if as_csv and as_json:
        raise UserError("give --csv or --json, not both")
    quiet_libraries()
    model = load_network(network, device)
    sources = [source for path in paths for source in model.reader.sources(_existing(path))[0]]
    found = model.predict_each(sources, top, batch_size=batch_size)
    write = _write_json if as_json else _write_text
    unread: list[Any] = []
    try:
        if as_csv:
            _write_csv(_watched(found, len(sources), unread), model.columns(top))
        else:
            write(_watched(found, len(sources), unread))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if unread:
        print(f"optnas: {len(unread)} of {len(sources)} cannot be read", file=sys.stderr)
        raise typer.Exit(1)
    if not (as_csv or as_json):  # Not among the answers, which may go to another program.
        print(f"Next: optnas export {shlex.quote(str(network))} --to onnx", file=sys.stderr)


def export(
    network: Network,
    to: Annotated[str, typer.Option("--to", help="onnx, torch, openvino, executorch or python.")],
    output: Annotated[
        Path | None, typer.Option(help="The file. Default: one in the network's folder.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of images to compare on. Default: the training's data."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Normalised float32 images in, logits out.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise ONNX, calibrated on training images.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a kept network for other programs and devices, and compare it with the network."""
    from optnas.extensions.importing import load_part

    quiet_libraries()
    made = load_part("export")(network, to, output, images=images, raw=raw, int8=int8)
    if as_json:
        print(json.dumps(dataclasses.asdict(made)))
        return
    print(f"greatest difference {made.difference:.2g} on {made.images} images, float32 on the CPU")
    if made.agreement is not None:
        lost = (
            ""
            if made.accuracy is None
            else (f"; test accuracy {made.quantised_accuracy:.4f} instead of {made.accuracy:.4f}")
        )
        print(f"in 8 bits {made.agreement:.4f} of the images are called the same{lost}")
    for note in made.notes:
        print(f"mind: {note}")
    threads = "" if made.form == "executorch" else " on one thread"
    print(f"{size(made.bytes)}, {made.milliseconds:.2f} ms for one image{threads}")
    print(f"kept in {', '.join(made.files)}")


def load_network(folder: Path, device: str = "cpu") -> Any:
    """The network, or the ensemble, in a folder, on a device.

    Raises:
        UserError: If there is none, or no such device.
    """
    from optnas.errors import UserError, first_line
    from optnas.extensions.importing import load_part

    if device.partition(":")[0] == "meta":
        raise UserError("--device meta: there are no numbers; take cpu or cuda")
    try:
        return load_part("load")(folder, device)
    except UserError:
        raise
    except (RuntimeError, AssertionError) as error:  # What torch says of devices.
        raise UserError(f"--device {device}: {first_line(error)}") from None


def _existing(path: Path) -> Path:
    from optnas.errors import UserError

    if not path.exists():
        raise UserError(f"{path} does not exist")
    return path


def _watched(found: Iterator[Any], total: int, unread: list[Any]) -> Iterator[Any]:
    """The predictions; how many there are already is said on stderr, and which cannot be read."""
    from optnas.pages.text import in_a_line

    is_seen = total > _SHOWN_EVERY and sys.stderr.isatty()
    for number, each in enumerate(found, start=1):
        if each.error is not None:
            unread.append(each)
            print(in_a_line(f"optnas: {each.source}: {each.error}"), file=sys.stderr)
        if is_seen and (number % _SHOWN_EVERY == 0 or number == total):
            end = "\n" if number == total else "\r"
            print(f"{number:,} of {total:,} images", end=end, file=sys.stderr, flush=True)
        yield each


def _write_text(found: Iterable[Any]) -> None:
    from optnas.pages.text import in_a_line

    for each in found:
        if each.error is None:
            print(in_a_line(f"{each.source}: {each.text()}"))


def _write_json(found: Iterable[Any]) -> None:
    for each in found:
        print(json.dumps(each.fields()))


def _write_csv(found: Iterable[Any], columns: list[str]) -> None:
    """A row per image: the file, what the network says, and why it cannot be read."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["file", *columns, "error"])
    for each in found:
        cells = each.cells()
        cells += [""] * (len(columns) - len(cells))
        table.writerow([each.source, *cells, each.error or ""])
