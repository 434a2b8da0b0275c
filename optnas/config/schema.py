"""The JSON schema of a study file, for editors."""

from collections.abc import Iterable, Iterator
from typing import Any

from optnas.config import plugins
from optnas.config.keys import OPTIONAL_BLOCKS, PLUGINS, SUPPLIED, StudyKeys
from optnas.config.plugins import Kind
from optnas.extensions.importing import REFERENCE, PluginError

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The JSON schema of a study file, with the options of everything that is installed."""
    result = StudyKeys.model_json_schema()
    properties, definitions = result["properties"], result["$defs"]
    for kind in PLUGINS:
        field = properties[kind]
        properties[kind] = {
            "description": field["description"],
            "default": field["default"]["name"],
            "anyOf": [_name_schema(plugins.names(kind)), *_plugin_schemas(kind, definitions)],
        }
    definitions.pop("Choice")
    name = definitions["DataSettings"]["properties"]["name"]
    definitions["DataSettings"]["properties"]["name"] = _name_schema(plugins.names("data")) | {
        "description": name["description"]
    }
    properties["data"] = {
        "description": properties["data"]["description"],
        "anyOf": [_name_schema(plugins.names("data")), {"$ref": "#/$defs/DataSettings"}],
    }
    for key in OPTIONAL_BLOCKS:
        description = {"description": properties[key].pop("description")}
        properties[key] = description | {"anyOf": [properties[key], {"type": "null"}]}
    for key in ("storage", "artifacts"):
        del properties[key]["default"]
    return {"$schema": DIALECT, **result, "title": "optnas study file"}


def _name_schema(known: Iterable[str]) -> dict[str, Any]:
    reference = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
    return {"anyOf": [{"enum": list(known)}, reference]}


def _plugin_schemas(kind: Kind, definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A mapping of name and options for every known plugin, and for ``module:Name``."""
    default = StudyKeys.model_fields[kind].default.name
    named = {"description": "The name."}
    reference = named | {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
    yield {"type": "object", "properties": {"name": reference}, "required": ["name"]}
    for name in plugins.names(kind):
        plugin_schema: dict[str, Any] = {"type": "object", "properties": {}}
        # Objectives import torch, and what cannot be imported has no known options.
        if kind != "objective":
            try:
                model = plugins.options_model(plugins.load(kind, name), SUPPLIED[kind])
            except PluginError:
                continue
            plugin_schema = model.model_json_schema()
            definitions.update(plugin_schema.pop("$defs", {}))
            plugin_schema.pop("description", None)
        plugin_schema.setdefault("properties", {})["name"] = named | {"const": name}
        if name != default:
            plugin_schema["required"] = ["name", *plugin_schema.get("required", [])]
        yield plugin_schema
