"""Known networks to compare with: which ones, and the weights that they start from."""

import dataclasses
import hashlib
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from optnas.errors import UserError
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.networks.known import LIBRARY, KnownArchitecture, check_known


@dataclasses.dataclass(frozen=True)
class Reference:
    """A known network, and the file of the weights that it starts from; None for random ones."""

    architecture: KnownArchitecture
    weights: Path | None = None

    @property
    def name(self) -> str:
        """What it is called in tables and folders."""
        return self.architecture.name + ("" if self.weights is None else "-pretrained")

    def load_into(self, model: nn.Module) -> int:
        """Copy every tensor of the file that has its name and its shape in ``model``.

        The classifier stays as it is, unless it is for as many classes.

        Returns:
            How many tensors were copied; 0 without a file.

        Raises:
            UserError: If the file cannot be read, or is not of this network.
        """
        if self.weights is None:
            return 0
        copied = inherit(model, _state_in(self.weights))
        if copied < len(model.state_dict()) / 2:
            raise UserError(
                f"--reference: {self.weights} is not of a {self.architecture.name}: only {copied} "
                f"of its {len(model.state_dict())} tensors are there"
            )
        return copied

    def checksum(self) -> dict[str, str]:
        """What tells trainings that start from other weights apart."""
        if self.weights is None:
            return {}
        try:
            return {"weights_sha256": hashlib.sha256(self.weights.read_bytes()).hexdigest()}
        except OSError as error:
            raise UserError(f"--reference: {self.weights}: {error.strerror}") from None


def references_of(text: str) -> list[Reference]:
    """The networks of ``timm:NAME[@FILE][,NAME...]``, each once.

    Raises:
        UserError: If it is not of this form, or timm has no such network.
    """
    library, colon, names = text.partition(":")
    if library != LIBRARY or not colon or not names:
        raise UserError(
            f"--reference: expected timm:NAME[,NAME], such as timm:resnet18, not {text!r}"
        )
    found = {}
    for part in re.split(r"\s*,\s*", names.strip()):
        name, _, weights = part.partition("@")
        reference = Reference(check_known(name), Path(weights).expanduser() if weights else None)
        found[reference.name] = reference
    return list(found.values())


def _state_in(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name: safetensors, or what `torch.save` wrote of a state_dict."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            loaded = loaded.get(key, loaded)
        return {name: tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
    except Exception:  # torch.load's own words advise to run what the file says.
        raise UserError(
            f"--reference: {path} cannot be read as weights; it must be a state_dict, as "
            "`torch.save(model.state_dict(), path)` writes it, or safetensors"
        ) from None
