"""Tables of labels."""

import json

import pytest

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.tables import by_table

ROWS = [("a.png", "cat"), ("sub/b.png", "dog"), ("c d.jpg", "cat"), ("é.png", "dog")]


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for name, _ in ROWS:
        (place / name).write_bytes(b"")
    return place


def written(root, text, name="labels.csv", **options):
    path = root.parent / name
    path.write_text(text, **options)
    return path


def csv_of(rows, header="file,label", delimiter=","):
    lines = [header.replace(",", delimiter), *(delimiter.join(row) for row in rows)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        csv_of(ROWS),
        csv_of(ROWS).replace("\n", "\r\n"),
        "\ufeff" + csv_of(ROWS),
        csv_of(ROWS, delimiter=";"),
        csv_of(ROWS, delimiter="\t"),
        csv_of(ROWS, header=" File , LABEL"),
        csv_of([(f'"{file}"', label) for file, label in ROWS]) + "\n\n",
        csv_of([(file, label, "9") for file, label in ROWS], header="file,label,age"),
        csv_of([(file.replace("/", "\\"), label) for file, label in ROWS]),
        csv_of([(f"./{file}", label) for file, label in ROWS]),
    ],
)
def test_every_usual_form_of_csv(root, text):
    listing = by_table(root, written(root, text, newline=""))
    assert {(e.name, e.label, e.split) for e in listing.entries} == {(*row, None) for row in ROWS}
    assert listing.class_names == ("cat", "dog")


def test_json_lines_and_numbers_as_labels(root):
    lines = [json.dumps({"label": i, "file": file}) for i, (file, _) in enumerate(ROWS)]
    listing = by_table(root, written(root, "\n".join(lines), "labels.jsonl"))
    assert listing.class_names == ("0", "1", "2", "3")


def test_splits_of_a_table(root):
    names = ["train", "Training", "TEST", "val"]
    rows = [(file, "cat", split) for (file, _), split in zip(ROWS, names, strict=True)]
    rows += [("x.png", "dog", "train")]
    listing = by_table(root, written(root, csv_of(rows, header="file,label,split")))
    assert sorted(str(e.split) for e in listing.entries) == [
        "test",
        "train",
        "train",
        "train",
        "validation",
    ]


def test_a_table_may_lie_in_the_folder_and_leaves_images_out(root):
    (root / "labels.csv").write_text(csv_of(ROWS[:2]))
    (root / "._a.png").write_bytes(b"")
    listing = by_table(root, root.parent / "labels.csv")
    assert listing.left_out == {"images that the table does not name": ["c d.jpg", "é.png"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns file, label"),
        ("name,label\na.png,cat\n", "seen: name, label"),
        ("file,label,label\na,b,c\n", "a column is there twice"),
        ("file,label\na.png,cat,dog\n", "labels.csv:2: 3 values for 2 columns"),
        ("file,label\na.png,\n", "labels.csv:2: `label`"),
        ("file,label\n,cat\n", "labels.csv:2: `file`"),
        ("file,label\na.png,cat\na.png,dog\n", "labels.csv:3: 'a.png' is of another class"),
        ("file,label\na.png,cat\nsub/b.png,cat\n", "two or more classes; seen: cat"),
        ("file,label,split\na.png,cat,train\nsub/b.png,dog,\n", "1 image of 2 have no `split`"),
        ("file,label,split\na.png,cat,holdout\n", "must be train, validation or test: 'holdout'"),
        (
            "file,label,split\na.png,cat,test\nsub/b.png,dog,val\n",
            "no image is of the split train",
        ),
        ("file,label,split\na.png,cat,train\nsub/b.png,dog,test\n", "lack the classes dog"),
        ('file,label\n"a.png,cat\n', "labels.csv:"),
        ('{"file": "a.png"}\n', "expected the columns"),
        ('{"file": "a.png", "label": "cat"}\n[1]\n', "labels.csv:2: expected an object"),
        ('{"file": "a.png", "label": 1.5}\n', "`label` must be the name"),
        ('{"file": "a.png", "label": "\\ud800"}\n', "`label` must be the name"),
        ('{"file": "\\ud800.png", "label": "cat"}\n', "`file` must be the path"),
        ('{"file": "a.png", "label": "cat", "Label": "dog"}\n', "a column is there twice"),
        ("file,label\na,cat\nsub/b,dog\nc,cat\n", "3 of 3 files are not in .*a, c, sub/b. The"),
        ("file,label\n../photos/a.png,cat\na.png,dog\n", "'a.png' is of another class"),
    ],
)
def test_tables_that_contradict_themselves(root, text, message):
    with pytest.raises(DataError, match=message):
        by_table(root, written(root, text))


def test_tables_that_cannot_be_read(root):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        by_table(root, root / "nothing.csv")
    path = root / "labels.csv"
    path.write_bytes(b"file,label\na.png,caf\xe9\n")
    with pytest.raises(DataError, match=r"labels\.csv:2: not UTF-8"):
        by_table(root, path)
    path.write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(DataError, match=r"labels\.csv is no text: save the table as CSV"):
        by_table(root, path)
