"""The commands that compare faces: `optnas verify` and `optnas identify`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from optnas.cli.options import Device, Json

FaceNetworkFolder = Annotated[
    Path, typer.Argument(metavar="NETWORK", help="A folder that `optnas retrain` wrote.")
]
FalseAcceptRate = Annotated[
    float | None,
    typer.Option(help="The false accept rate that the threshold was set at. Default: 0.01."),
]


def verify(
    network: FaceNetworkFolder,
    first: Annotated[Path, typer.Argument(metavar="A.jpg", help="An aligned face.")],
    second: Annotated[Path, typer.Argument(metavar="B.jpg", help="Another.")],
    far: FalseAcceptRate = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Whether two faces are of one person, by a trained face network."""
    answer = _faces().verify(network, first, second, far=far, device=device)
    verdict = "one person" if answer["same"] else "two people"
    print(json.dumps(answer) if as_json else f"{verdict}: {_score(answer)}")


def identify(
    network: FaceNetworkFolder,
    gallery: Annotated[
        Path, typer.Argument(metavar="GALLERY", help="A folder with a folder of faces per person.")
    ],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Aligned faces.")],
    far: FalseAcceptRate = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Whose faces photos show, of the people in a gallery."""
    answers = _faces().identify(network, gallery, photos, far=far, device=device)
    if as_json:
        print(json.dumps(answers))
        return
    for answer in answers:
        who = answer["person"] or f"nobody known (nearest: {answer['nearest']})"
        print(f"{answer['photo']}: {who}: {_score(answer)}")


def _faces() -> Any:
    from optnas.config import plugins

    return plugins.load("objective", "faces", None)


def _score(answer: dict[str, Any]) -> str:
    return (
        f"score {answer['score']:.4f}, threshold {answer['threshold']:.4f} "
        f"(false accept rate {answer['far']:g})"
    )
