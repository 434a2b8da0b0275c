"""Folders of images: layouts, what is nobody's image, and what is ambiguous."""

import os
from collections import Counter

import pytest

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.listing import by_folders, left_out_lines


def tree(root, *paths):
    """Empty files; a path that ends with a slash is a folder."""
    for path in paths:
        place = root / path
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
    return root


def found(root):
    """How many files there are of every class and split."""
    listing = by_folders(root)
    return listing.class_names, Counter((e.label, e.split) for e in listing.entries)


CLASSES = ("cat", "dog")


def splits(*names):
    return [f"{name}/{label}/0.png" for name in names for label in CLASSES]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", "training", "train_set")),
        *((name, "train") for name in ("Training-Set", "train_images", "trainset", "trainData")),
        *((name, "train") for name in ("train2017", "images_train", "train-folder", "TrainSplit")),
    ],
)
def test_training_folders_by_their_usual_names(tmp_path, name, split):
    classes, counts = found(tree(tmp_path, *splits(name, "test")))
    assert classes == CLASSES
    assert counts == {(c, s): 1 for c in CLASSES for s in (split, "test")}


@pytest.mark.parametrize(
    "name",
    [
        "val",
        "VAL",
        "valid",
        "validation",
        "Validation_Set",
        "dev",
        "devset",
        "val2017",
        "val-images",
    ],
)
def test_validation_folders_by_their_usual_names(tmp_path, name):
    _, counts = found(tree(tmp_path, *splits("train", name)))
    assert counts == {(c, s): 1 for c in CLASSES for s in ("train", "validation")}


@pytest.mark.parametrize(
    "name", ["test", "Test", "testing", "TEST_SET", "test images", "testdata"]
)
def test_test_folders_by_their_usual_names(tmp_path, name):
    _, counts = found(tree(tmp_path, *splits("training", "dev", name)))
    assert counts == {(c, s): 1 for c in CLASSES for s in ("train", "validation", "test")}


def test_classes_may_be_nested_and_inside_out(tmp_path):
    nested = tree(tmp_path / "a", "cat/persian/old/0.png", "cat/1.png", "dog/0.png")
    assert found(nested)[1] == {("cat", None): 2, ("dog", None): 1}
    inside_out = tree(
        tmp_path / "b", *(f"{c}/{s}/0.jpg" for c in CLASSES for s in ("train", "TEST"))
    )
    assert found(inside_out)[1] == {(c, s): 1 for c in CLASSES for s in ("train", "test")}
    deep = tree(tmp_path / "c", "train/cat/x/y/0.png", "train/dog/0.png", "val/cat/z/0.png")
    assert found(deep)[1][("cat", "validation")] == 1


def test_trains_are_a_class_beside_buses(tmp_path):
    listing = by_folders(tree(tmp_path, "bus/0.png", "car/0.png", "train/0.png"))
    assert listing.class_names == ("bus", "car", "train")
    assert any("'train' is taken for a class" in line for line in listing.remarks)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/0.png", "test/0.png"], "Expected a folder of images for each class"),
        (["training/0.png", "validation/0.png"], "Expected a folder of images for each class"),
        (splits("val", "test"), "no training images"),
        (splits("train", "Training"), "all seem to be train images"),
        (splits("train", "val", "valid"), "all seem to be validation images"),
        ([*splits("train", "test"), "extra/0.png"], "beside them is extra"),
        ([*splits("train"), "cat/0.png", "dog/0.png"], "beside them is cat, dog"),
        (["cat/0.png", "dog/0.png", "test/0.png"], "look like splits"),
        (["bus/0.png", "train/steam/0.png", "car/0.png"], "look like splits"),
        (
            [*splits("train"), "test/cat/0.png", "test/owl/0.png"],
            r"has classes that .* lacks: \['owl'\]",
        ),
        (["cat/train/0.png", "cat/test/0.png", "dog/0.png"], "'dog' is not divided so"),
        (["cat/train/0.png", "cat/1.png", "dog/train/0.png"], "'cat' is not divided so"),
        (["0.png", "1.png"], "need a table"),
        (["pets/cat/0.png", "pets/dog/0.png"], "Did you mean the folder 'pets'"),
        (["cat/0.png", "dog/0.heic"], r"No images in .*dog.*optnas\[heif\]"),
        (["cat/0.png"], "two or more classes"),
        ([], "seen: nothing"),
    ],
)
def test_what_is_ambiguous_is_refused_with_what_was_seen(tmp_path, paths, message, monkeypatch):
    monkeypatch.setattr("optnas.objectives.data.decoding.reads_heif", lambda: False)
    with pytest.raises(DataError, match=message):
        by_folders(tree(tmp_path, *paths))


JUNK = [
    *(
        ".DS_Store",
        "cat/.DS_Store",
        "cat/._0.png",
        "cat/.hidden/1.png",
        ".ipynb_checkpoints/0.png",
    ),
    *("cat/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/cat/._0.png", "cat/Thumbs.db"),
    *("cat/@eaDir/0.png/SYNOFILE_THUMB_M.png", "@eaDir/x.png", ".Trash-1000/files/0.png"),
    *("cat/.Trash-0/0.png", "desktop.ini", "$RECYCLE.BIN/0.png", "lost+found/", "#recycle/0.png"),
    *("System Volume Information/x.png", "cat/~$x.png", "__pycache__/0.png", "cat/EHTHUMBS.DB"),
]


@pytest.mark.parametrize("entry", JUNK)
def test_what_systems_leave_behind_is_no_image(tmp_path, entry):
    listing = by_folders(tree(tmp_path, "cat/0.png", "dog/0.png", entry))
    assert [e.name for e in listing.entries] == ["cat/0.png", "dog/0.png"]
    assert len(listing.left_out["hidden or system entries"]) == 1


def test_what_is_left_out_is_said(tmp_path):
    root = tree(
        tmp_path, *splits("train"), "train/loose.png", "train/cat/a.txt", "train/cat/b.nef"
    )
    tree(root, "test/0.png", "test/1.png", "val/", "readme.md", "train/dog/x.TXT", "train/dog/y")
    listing = by_folders(root)
    assert len(listing.entries) == 2
    lines = left_out_lines(listing.left_out)
    assert "images without a class (2): test/0.png, test/1.png" in lines
    assert "images outside the folders of the classes (1): train/loose.png" in lines
    assert any(line.startswith(".nef files, which cannot be read here: convert") for line in lines)
    assert any("(.txt 2, .md 1, no suffix 1)" in line for line in lines)
    assert listing.remarks == ["'val' holds no images"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    elsewhere = tree(tmp_path / "elsewhere", "0.png", "1.png")
    root = tree(tmp_path / "root", "cat/0.png")
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    listing = by_folders(root)
    assert [e.name for e in listing.entries] == ["cat/0.png", "dog/0.png", "dog/1.png"]
    assert listing.left_out["links to a folder above"] == ["cat/again"]
    assert listing.left_out["links that lead nowhere"] == ["cat/gone.png"]


def test_people_count_2_before_10(tmp_path):
    names = ["10", "2", "1", "class 11", "class 9", "a2b10", "a2b9"]
    listing = by_folders(tree(tmp_path, *(f"{name}/0.png" for name in names)))
    assert listing.class_names == ("1", "2", "10", "a2b9", "a2b10", "class 9", "class 11")


def test_names_that_look_the_same_are_the_same(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = tree(tmp_path, f"train/{composed}/0.png", f"test/{decomposed}/0.png", "train/bar/0.png")
    classes, counts = found(root)
    assert classes == ("bar", composed)
    assert counts[(composed, "test")] == 1


def test_names_that_are_no_utf8_can_be_said(tmp_path):
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    open(os.fsencode(tmp_path) + b"/caf\xe9/0.png", "wb").close()
    classes, _ = found(tree(tmp_path, "bar/0.png"))
    assert classes == ("bar", r"caf\xe9")
    " ".join(classes).encode()


def test_splits_in_splits_are_no_classes(tmp_path):
    paths = splits("train/train", "train/val")
    with pytest.raises(DataError, match=r"train holds folders named like splits again.*`root`"):
        by_folders(tree(tmp_path, *paths))


def test_data_sets_beside_each_other_are_no_classes(tmp_path):
    paths = splits("first/train", "first/test", "second/train", "second/test")
    with pytest.raises(DataError, match=r"could be first, second, or the folders .* cat, dog"):
        by_folders(tree(tmp_path, *paths))


def test_a_link_to_itself_and_what_is_no_file_are_left_out(tmp_path):
    root = tree(tmp_path, *splits("train"))
    (root / "train/cat/self.png").symlink_to("self.png")
    os.mkfifo(root / "train/cat/pipe.png")
    listing = by_folders(root)
    assert len(listing.entries) == 2
    assert listing.left_out["links that lead nowhere"] == ["train/cat/self.png"]
    assert listing.left_out["no regular files"] == ["train/cat/pipe.png"]


def test_folders_beyond_any_sense_are_refused(tmp_path):
    tree(tmp_path, "cat/0.png", "dog/0.png", f"cat/{'d/' * 120}")
    with pytest.raises(DataError, match="nested more than 100 deep"):
        by_folders(tmp_path)


def test_folders_that_become_one_class_are_named(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = tree(tmp_path, f"{composed}/0.png", f"{decomposed}/1.png", "bar/0.png")
    assert by_folders(root).remarks == [
        f"folders whose names look the same are one class: {composed}"
    ]
