"""A network as Python that needs torch and safetensors alone: a layer a line."""

import inspect
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import fx, nn

_FREED = re.compile(r";  [\w ]+(= \w+ )*= None$", re.MULTILINE)
_SLICES = re.compile(r"\[\((slice\([^()]*\)(?:, slice\([^()]*\))*)\)\]")
_SLICE = re.compile(r"slice\((\w+), (\w+), (\w+)\)")

_TEMPLATE = '''"""{kind} found by architecture search; its weights lie beside.

Made by optnas; needs torch and safetensors alone.

    import {module}
    network = {module}.load()
    answers = network(images)  # {input} -> {output}
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

{names}
INPUT_SHAPE = {shape!r}  # channels, height and width
PREPROCESSING = {preprocessing!r}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

{forward}

def load(path=None):
    """The trained network, in evaluation mode."""
    network = Network()
    network.load_state_dict(load_file(path or Path(__file__).with_name({weights!r})))
    return network.eval()
'''


def write_source(
    model: nn.Module, shape: tuple[int, ...], about: dict[str, Any], path: Path
) -> tuple[str, bytes]:
    """The text of a module that builds and loads a network, and its weights.

    Args:
        model: The network.
        shape: Channels, height and width of its images.
        about: What is known of it.
        path: Where the text will be.

    Raises:
        ValueError: If its layers are not all of `torch.nn`, or it decides by what it sees.
    """
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # whatever a network does that cannot be followed
        raise ValueError(f"it cannot be written as Python: {error}") from error
    layers, state = _flattened(model, graph)
    code = graph.python_code("self", verbose=False).src
    classes = about.get("class_names")
    text = _TEMPLATE.format(
        weights=path.with_suffix(".safetensors").name,
        module=path.stem,
        input=about["input"],
        output=about["output"],
        kind="An image classifier" if classes is not None else "A face network",
        names=(
            f"THRESHOLDS = {about['thresholds']!r}  # scores from which faces are one person's"
            if classes is None
            else f"CLASS_NAMES = {tuple(classes)!r}"
        ),
        shape=tuple(shape),
        preprocessing=about["preprocessing"],
        layers="\n".join(f"        {line}" for line in layers),
        forward=_readable(code),
    )
    described = {} if classes is None else {"class_names": repr(classes)}
    return text, safetensors.torch.save(state, metadata=described)


def _flattened(model: nn.Module, graph: fx.Graph) -> tuple[list[str], dict[str, torch.Tensor]]:
    """The lines that make the layers, and their state, by names without dots."""
    layers: dict[str, str] = {}
    state: dict[str, torch.Tensor] = {}
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        target = str(node.target)
        name = target.replace(".", "_")
        node.target = name
        if node.op == "call_module":
            part = model.get_submodule(target)
            layers[name] = f"self.{name} = {_made(part)}"
            for key, tensor in part.state_dict().items():
                state[f"{name}.{key}"] = tensor.detach().cpu().contiguous().clone()
        else:
            owner, _, key = target.rpartition(".")
            tensor = getattr(model.get_submodule(owner), key)
            kind = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
            empty = f"torch.zeros({tuple(tensor.shape)!r}{kind})"
            is_parameter = isinstance(tensor, nn.Parameter)
            layers[name] = (
                f"self.{name} = nn.Parameter({empty})"
                if is_parameter
                else f'self.register_buffer("{name}", {empty})'
            )
            state[name] = tensor.detach().cpu().contiguous().clone()
    return list(layers.values()), state


def _made(part: nn.Module) -> str:
    """The call of a constructor of torch.nn, with what is not as by default."""
    kind = type(part)
    if getattr(nn, kind.__name__, None) is not kind:
        raise ValueError(
            f"it cannot be written as Python: {kind.__name__} is no layer of torch.nn"
        )
    given = []
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        value = getattr(part, name, parameter.default)
        if name == "bias":
            value = value is not None and value is not False
        if parameter.default is inspect.Parameter.empty:
            given.append(_plain(value))
        elif value != parameter.default and _plain(value) != repr(parameter.default):
            given.append(f"{name}={_plain(value)}")
    return f"nn.{kind.__name__}({', '.join(given)})"


def _plain(value: Any) -> str:
    """A value; a pair of equal numbers as one."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return repr(value)


def _readable(code: str) -> str:
    """The method that was traced, as a person would write it."""
    code = code[code.index("def forward") :].rstrip()
    code = _FREED.sub("", code)
    code = _SLICES.sub(lambda match: f"[{_SLICE.sub(_colon, match[1])}]", code)
    code = re.sub(r"\[(slice\(\w+, \w+, \w+\))\]", lambda m: f"[{_SLICE.sub(_colon, m[1])}]", code)
    code = re.sub(r"def forward\(self, (\w+).*?\):", r"def forward(self, \1):", code)
    return "\n".join(f"    {line}" if line else "" for line in code.splitlines()) + "\n"


def _colon(match: re.Match[str]) -> str:
    start, stop, step = ("" if bound == "None" else bound for bound in match.groups())
    return f"{start}:{stop}" + (f":{step}" if step else "")
