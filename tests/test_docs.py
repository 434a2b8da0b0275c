"""The pages in docs/: their examples work, and the page about study files is complete."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import typer
import yaml
from PIL import Image

import optnas
from optnas import cli
from optnas.config import plugins
from optnas.config.file import study_from_dict
from optnas.config.keys import PLUGINS, SUPPLIED, Resources
from optnas.config.plugins import Kind
from optnas.config.schema import schema
from optnas.config.settings import SearchSettings
from optnas.extensions.importing import REFERENCE

DOCS = Path(__file__).parents[1] / "docs"
OPTNAS = [sys.executable, "-c", "from optnas.cli import main; main()"]


def test_the_toy_strategies_run(tmp_path):
    page = (DOCS / "architecture.md").read_text()
    code = "".join(blocks(page, "python"))
    code += """
import optuna

assert [shape.text for shape in picture(Number(3)).shapes[1:]] == ["images", "layer 3"]
for sampler in (Climb(Line()), Draw(Line()), Walk(Line(), steps=9)):
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: float(min(Line().suggest(trial).x, 7)))
    print(len(study.trials), study.best_value)
"""
    (tmp_path / "toys.py").write_text(code)
    toys = [sys.executable, "toys.py"]
    done = subprocess.run(toys, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["9 7.0", "10 7.0", "9 7.0"]


def test_the_page_about_study_files_says_what_the_models_say():
    """`python tests/test_docs.py` writes the tables anew; the text around them is by hand."""
    page = (DOCS / "study_file.md").read_text()
    assert page == with_tables(page)
    assert set(tables()) <= set(re.findall("^## (.*)$", page, re.M))


def test_the_page_about_many_workers_says_what_there_is():
    page = (DOCS / "distributed.md").read_text()
    files = blocks(page, "yaml")
    for text in files:
        study_from_dict(yaml.safe_load(text))
    commands = [
        shlex.split(line, comments=True)
        for text in blocks(page, "sh")
        for line in text.replace("srun ", "").splitlines()
        if line.startswith("optnas ")
    ]
    known = typer.main.get_command(cli.app).commands
    for _, name, *arguments in commands:
        if ">>" in arguments:
            arguments = arguments[: arguments.index(">>")]
        known[name].make_context(name, arguments)
    assert (len(files), len(commands)) == (3, 9)


def test_the_page_about_exports_predicts_in_six_lines(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    page = (DOCS / "export.md").read_text()
    (code,) = blocks(page, "python")
    (commands,) = blocks(page, "sh")
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    monkeypatch.chdir(tmp_path)
    study = yaml.safe_load((DOCS.parent / "studies" / "digits.yaml").read_text())
    study |= {"budget": {"trials": 1}, "train": {"epochs": 1}, "sampler": "random"}
    study |= {"retrain": {"epochs": 2}, "storage": "sqlite:///studies/digits.db"}
    (tmp_path / "studies").mkdir()
    opened = optnas.open(study)
    opened.run(progress=False)
    opened.retrain()
    monkeypatch.setattr(sys, "argv", shlex.split(commands.splitlines()[1]))
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code = f"import sys; sys.modules['optnas'] = None\n{code}"
    code += "np.save('seen.npy', np.asarray(photo.convert('L'))[None])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    model = optnas.load(tmp_path / "studies" / "digits.network")
    assert done.stdout.strip() == model.predict(tmp_path / "photo.png").label
    assert np.array_equal(np.load(tmp_path / "seen.npy"), model.reader(tmp_path / "photo.png"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


def with_tables(page: str) -> str:
    """The page with every section's table as the models have it."""
    parts = re.split(r"^(?=## )", page, flags=re.M)
    for index, part in enumerate(parts):
        rows = tables().get(part.partition("\n")[0].removeprefix("## "))
        if rows is not None:
            text = "\n".join(line for line in part.splitlines() if not line.startswith("|"))
            parts[index] = "\n".join([text.rstrip(), "", *HEAD, *rows, "", ""])
    return "".join(parts).rstrip() + "\n"


HEAD = ("| key | type | default | meaning |", "|---|---|---|---|")


def tables() -> dict[str, list[str]]:
    """The rows of every section: the keys, every block of keys, and the options of two plugins."""
    document = schema()
    keys, definitions = document["properties"], document["$defs"]
    names = {name.partition("Settings")[0].lower(): name for name in definitions}
    result = {"Keys": rows(keys, document["required"])}
    for key in [key for key in keys if key in names]:
        block = definitions[names[key]]
        result[f"`{key}`"] = rows(block["properties"], block.get("required", []))
    result["`space: chain`"] = options("space", "chain")
    result["`sampler: macro_micro`"] = options("sampler", "macro_micro")
    result["`workers.resources`"] = rows(Resources.model_json_schema()["properties"], [])
    search = SearchSettings.model_json_schema()
    result["`objective.search`"] = rows(search["properties"], [])
    return result


def options(plugin: Kind, name: str) -> list[str]:
    model = plugins.options_model(plugins.load(plugin, name), SUPPLIED[plugin])
    return rows(model.model_json_schema()["properties"], [])


def rows(properties: dict[str, Any], required: list[str]) -> list[str]:
    result = []
    for key, prop in properties.items():
        default = "required" if key in required else ""
        if "default" in prop:
            default = f"`{json.dumps(prop['default'], ensure_ascii=False)}`"
        text = prop.get("description", "").replace("``", "`").replace("\n", " ")
        type_ = "name, or keys" if key in (*PLUGINS, "data") else described(prop)
        result.append(f"| `{key}` | {type_} | {default} | {text} |")
    return result


def described(prop: dict[str, Any]) -> str:
    """The type and the bounds of a key, from its JSON schema."""
    if "anyOf" in prop:
        return " or ".join(described(part) for part in prop["anyOf"])
    if "$ref" in prop:
        return "keys"
    if "enum" in prop or "const" in prop:
        return ", ".join(f"`{value}`" for value in prop.get("enum", [prop.get("const")]))
    if prop["type"] == "array":
        each = [described(item) for item in prop.get("prefixItems", [])]
        return f"[{', '.join(each or [described(prop['items']), '...'])}]"
    if "pattern" in prop:
        return "`module:name`" if REFERENCE.pattern in prop["pattern"] else f"`{prop['pattern']}`"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {prop[name]}" for name, sign in signs.items() if name in prop]
    return f"{prop['type']} {' and '.join(bounds)}".strip()


if __name__ == "__main__":
    path = DOCS / "study_file.md"
    path.write_text(with_tables(path.read_text()))


def test_the_page_about_python_runs(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "study: tiny\ndata: digits\nsampler: random\ntrain: {epochs: 1}\nbudget: {trials: 1}\n"
        "retrain: {epochs: 1}\nspace: {name: chain, depth: [1, 2], width: [2, 4]}\n"
    )
    digits = sklearn.datasets.load_digits()
    Image.fromarray((digits.images[0] * 15.9).astype("uint8")).save(tmp_path / "photo.png")
    page = (DOCS / "python.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", code + "print('exported')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.rstrip().endswith("exported")
    assert (tmp_path / "tiny.html").exists()
