"""YAML as plain data with the line of every key: no tags, aliases or repeated keys."""

import dataclasses
import re
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]

# Deeper than any study file needs and far from Python's recursion limit.
MAX_DEPTH = 20
_TAG = "tag:yaml.org,2002:"


# Where it would separate: elsewhere, in a quoted name say, it is a character like others.
_ODD_SPACES = re.compile("(?:[:,{[-]|^) *[\u00a0\u2007\u202f\u3000]", re.M)


class YamlError(ValueError):
    """A text that is not the YAML expected here, with the line and, if known, the key."""

    def __init__(self, message: str, line: int, path: KeyPath = ()) -> None:
        super().__init__(message)
        self.line = line
        self.path = path


@dataclasses.dataclass(frozen=True)
class Document:
    """The data of a YAML text and the line, counted from 1, where each key or entry stands."""

    data: Any
    lines: dict[KeyPath, int]


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            raise YamlError(
                "anchors (&) and aliases (*) are not supported; repeat the value", line
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep", line)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


# The resolvers of YAML 1.2: 3e-4 is a number, and `no`, `off` and 12:30 are strings.
_Loader.yaml_implicit_resolvers = {}
_DIGITS = "[0-9]+(?:_[0-9]+)*"
for _name, _regexp, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", rf"^(?:[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        rf"^(?:[-+]?(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_regexp), _first)


def parse(text: str) -> Document:
    """The data of one YAML document, made of dicts, lists, strings, numbers, bools and None.

    Args:
        text: The document; an empty one is None.

    Raises:
        YamlError: If the text is not YAML, repeats a key, or uses anchors, aliases, tags, keys
            that are no strings, or very deep nesting.
    """
    odd = _ODD_SPACES.search(text)
    if odd is not None:
        name = f"U+{ord(odd[0][-1]):04X}"
        line = text.count("\n", 0, odd.end()) + 1
        raise YamlError(
            f"a space that is none ({name}), as word processors and web pages have them; write "
            "an ordinary space",
            line,
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError("a control character, so not a text file", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "'\\t'" in str(error.problem):
            line = mark.line + 1 if mark else 1
            raise YamlError("a tab; indent and separate with spaces", line) from None
        raise YamlError(f"not valid YAML: {error.problem}", mark.line + 1 if mark else 1) from None
    lines: dict[KeyPath, int] = {(): node.start_mark.line + 1 if node else 1}
    return Document(_construct(node, (), lines) if node else None, lines)


def _construct(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_entry(child, (*path, i), lines) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path)
    raise YamlError(f"the tag {node.tag!r} is not supported", node.start_mark.line + 1, path)


def _entry(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    lines[path] = node.start_mark.line + 1
    return _construct(node, path, lines)


def _mapping(node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
            found = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a collection"
            hint = (
                "; 0,5 is two values, a number is 0.5"
                if found.isdigit() and not value_node.value
                else ""
            )
            raise YamlError(f"every key must be a string (found {found}{hint})", line, path)
        key = key_node.value
        inner = (*path, key)
        if key in result:
            text = f"repeated key, on lines {lines[inner]} and {line}; keep one of them"
            raise YamlError(text, line, inner)
        lines[inner] = line
        result[key] = _construct(value_node, inner, lines)
    return result


def _scalar(node: yaml.ScalarNode, path: KeyPath) -> Any:
    kind, text = node.tag.removeprefix(_TAG), node.value
    try:
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int":
                return int(text, 0 if text.startswith(("0o", "0x")) else 10)
            case "float":
                return float(re.sub(r"^([-+]?)\.(?=[a-zA-Z])", r"\1", text))
    except (ValueError, KeyError):
        line = node.start_mark.line + 1
        raise YamlError(
            f"not {kind} as YAML writes it (found {text[:40]!r})", line, path
        ) from None
    raise YamlError(f"the tag {node.tag!r} is not supported", node.start_mark.line + 1, path)
