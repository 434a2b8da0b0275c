"""Trained networks of stages whose weights others start from, block by block."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from optnas.errors import UserError
from optnas.objectives.kept import trained
from optnas.objectives.networks.stages import stage_network
from optnas.spaces import StageArchitecture, StageSpace

# torchvision's names of the layers of a ResNet, and ours.
_LAYERS = {"conv1": "stem.0", "bn1": "stem.1", "fc": "classifier"}
_BLOCK_LAYERS = {
    "conv1": "residual.0",
    "bn1": "residual.1",
    "conv2": "residual.3",
    "bn2": "residual.4",
    "conv3": "residual.6",
    "bn3": "residual.7",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Donor:
    """A trained network whose weights others start from.

    Args:
        architecture: Its stages.
        in_channels: Channels of the images that it was trained on.
        state: Its parameters and statistics, by the names of
            :class:`optnas.objectives.networks.stages.StageNetwork`.
        sha256: Checksum of the file that holds them.
        data_sha256: Checksum of the images that it was trained and tested on, if it is known.
    """

    architecture: StageArchitecture
    in_channels: int
    state: Mapping[str, Tensor]
    sha256: str
    data_sha256: str | None = None

    def check(self, space: StageSpace, in_channels: int) -> None:
        """Refuse a space whose networks cannot all start from this one.

        Raises:
            UserError: If they are of another kind, for images of other channels, or may be deeper.
        """
        own = self.architecture
        if (own.block, own.stages) != (space.block, space.stages):
            raise UserError(
                f"transfer: the donor has {own.stages} stages of {own.block!r} modules, the space "
                f"{space.stages} of {space.block!r}; name a donor of the same kind."
            )
        if self.in_channels != in_channels:
            raise UserError(
                f"transfer: the donor takes images of {self.in_channels} channels, the data has "
                f"{in_channels}; name a donor that was trained on such images."
            )
        ranges = list(zip(own.modules, space.ranges, strict=True))
        for stage, (modules, (_, deepest)) in enumerate(ranges, start=1):
            if deepest > modules:
                fitting = [[min(least, deep), min(most, deep)] for deep, (least, most) in ranges]
                raise UserError(
                    f"transfer: stage {stage} may have {deepest} modules in the space, and has "
                    f"{modules} in the donor; no stage can be deeper than the donor's. Write "
                    f"`modules: {fitting}` in the space, or name a deeper donor."
                )


def read_donor(path: Path) -> Donor:
    """A donor from a folder of ``optnas retrain``, or from a file of torchvision's weights.

    Args:
        path: The folder; or a file with the ``state_dict`` of torchvision's ``resnet50``,
            ``resnet101`` or ``resnet152``, as ``torch.save`` writes it.

    Raises:
        UserError: If there is neither, it cannot be read, or it is no network of stages.
    """
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    raise UserError(
        f"transfer: {path} does not exist; name a folder that `optnas retrain` wrote, or a file "
        "of a torchvision ResNet's weights. A study trains its own donor if the file says "
        "`sampler: {name: stage_wise, donor: true}`."
    )


def _from_folder(folder: Path) -> Donor:
    description, network = trained.read(folder)
    architecture = trained.architecture_of(description)
    if not isinstance(architecture, StageArchitecture):
        raise UserError(
            f"transfer: {folder} holds a network of the space {description.space!r}; name one of "
            "the space 'stage'."
        )
    return Donor(
        architecture,
        in_channels=description.input_shape[0],
        state=network.state_dict(),
        sha256=description.weights_sha256,
        data_sha256=description.data_sha256,
    )


def _from_file(path: Path) -> Donor:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception:  # torch.load's own words advise to run what the file says.
        raise UserError(
            f"transfer: {path} cannot be read as weights; it must be a state_dict, as "
            "`torch.save(model.state_dict(), path)` writes it."
        ) from None
    try:
        state = {_renamed(name): tensor for name, tensor in loaded.items()}
        architecture = _architecture(state)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise UserError(
            f"transfer: {path} does not hold the weights of torchvision's resnet50, resnet101 or "
            "resnet152; for other networks name a folder that `optnas retrain` wrote."
        ) from None
    return Donor(architecture, state["stem.0.weight"].shape[1], state, checksum)


def _renamed(name: str) -> str:
    """Our name of a tensor of torchvision's ResNet."""
    layer, _, kind = name.rpartition(".")
    if not layer.startswith("layer"):
        return f"{_LAYERS[layer]}.{kind}"
    stage, block, part = layer.removeprefix("layer").split(".", 2)
    return f"stages.{int(stage) - 1}.{int(block)}.{_BLOCK_LAYERS[part]}.{kind}"


def _architecture(state: Mapping[str, Tensor]) -> StageArchitecture:
    """The bottleneck network whose tensors these are.

    Raises:
        LookupError: If there is none.
        TypeError: Likewise.
        ValueError: Likewise.
    """
    # Counted, because a name in a made-up file may say any number.
    blocks: dict[int, set[str]] = {}
    for name in state:
        if name.startswith("stages."):
            _, stage, block, _ = name.split(".", 3)
            blocks.setdefault(int(stage), set()).add(block)
    numbers = tuple(len(blocks[stage]) for stage in range(len(blocks)))
    architecture = StageArchitecture(numbers, "bottleneck")
    with torch.device("meta"):
        model = stage_network(
            architecture, state["stem.0.weight"].shape[1], len(state["classifier.bias"])
        )
    if _shapes(model.state_dict()) != _shapes(state):
        raise ValueError("Its layers differ.")
    return architecture


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    # Weights from before PyTorch 0.4.1 do not say how many batches they saw.
    return {n: t.shape for n, t in state.items() if not n.endswith("num_batches_tracked")}
