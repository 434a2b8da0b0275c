"""Faces brought to one place by five landmarks: eyes, nose and the corners of the mouth.

Landmarks come with the data; nothing here finds faces or landmarks in a picture.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

REFERENCE: npt.NDArray[np.float64] = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
"""Where the landmarks lie in an aligned face of 112 x 112 pixels, (x, y): left eye, right eye,
nose, left and right corner of the mouth, as one sees them. These are ArcFace's."""


def similarity(
    points: npt.ArrayLike, targets: npt.ArrayLike = REFERENCE
) -> npt.NDArray[np.float64]:
    """The rotation, scale and shift that bring points nearest to their targets.

    Source: Umeyama 1991, for the plane and without mirroring, where it is the least squares of one
    complex factor and one complex shift.

    Args:
        points: (N, 2), N at least 2.
        targets: (N, 2).

    Returns:
        A matrix (2, 3): ``matrix @ (x, y, 1)`` is where a point goes.

    Raises:
        ValueError: If the shapes are others, a number is not finite, or all points are one.
    """
    source, target = (np.asarray(p, dtype=np.float64) for p in (points, targets))
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(f"Landmarks must be pairs (x, y), {len(target)} of them: {source.shape}.")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("Landmarks must be finite numbers.")
    before, after = source @ (1, 1j), target @ (1, 1j)
    centred = before - before.mean()
    spread = float(np.vdot(centred, centred).real)
    if spread < 1e-12:
        raise ValueError("Landmarks must not all lie in one place.")
    factor = np.vdot(centred, after - after.mean()) / spread
    shift = after.mean() - factor * before.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def aligned(
    picture: Image.Image, landmarks: Sequence[Sequence[float]], size: int = 112
) -> Image.Image:
    """The face of a picture, upright and centred; what lies outside of the picture is black.

    Args:
        picture: The picture.
        landmarks: Five points (x, y) in pixels: left eye, right eye, nose, left and right corner
            of the mouth, as one sees them; (0, 0) is the middle of the first pixel.
        size: Height and width of the result.

    Raises:
        ValueError: If the landmarks are not five points in more than one place.
    """
    matrix = similarity(landmarks, REFERENCE * (size / 112))
    factor = matrix[0, 0] + 1j * matrix[1, 0]
    inverse = 1 / factor
    shift = -inverse * (matrix[0, 2] + 1j * matrix[1, 2])
    # Pillow counts from the corner of the first pixel.
    corner = shift + (0.5 + 0.5j) - inverse * (0.5 + 0.5j)
    data = (inverse.real, -inverse.imag, corner.real, inverse.imag, inverse.real, corner.imag)
    return picture.transform(
        (size, size), Image.Transform.AFFINE, data, resample=Image.Resampling.BILINEAR
    )
