"""Files of face sets: RecordIO, pickled pairs, lists of pairs, IJB, ORL; whole, torn, hostile."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from optnas.config.settings import DataSettings
from optnas.objectives.data.errors import DataError
from optnas.objectives.faces.alignment import REFERENCE, aligned, similarity
from optnas.objectives.faces.images import load_faces
from optnas.objectives.faces.orl import load_orl
from optnas.objectives.faces.pair_sets import load_bin, load_pairs
from optnas.objectives.faces.recordio import MAGIC, RecordFile, load_recordio
from optnas.objectives.faces.templates import load_templates

ORL = Path(__file__).parents[2] / "shared" / "data" / "orl_faces.npz"
WORD = struct.pack("<I", MAGIC)


def png(value: int, size: int = 8, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value if mode == "L" else (value, 0, 255 - value)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def record(content: bytes) -> bytes:
    """One record as dmlc writes it: cut wherever the magic number stands on a multiple of four."""
    cuts = [i for i in range(0, len(content) - 3, 4) if content[i : i + 4] == WORD]
    bounds = [0, *(c + 4 for c in cuts)]
    parts = [content[a:b] for a, b in zip(bounds, [*cuts, len(content)], strict=True)]
    written = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        written += (
            WORD + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
        )
    return written


def image_record(label: float, content: bytes, labels: tuple[float, ...] = ()) -> bytes:
    head = struct.pack("<IfQQ", len(labels), label, 0, 0)
    return record(head + struct.pack(f"<{len(labels)}f", *labels) + content)


def write(folder: Path, records: list[bytes], *, index: bool = True, first: int = 0) -> Path:
    path = folder / "train.rec"
    path.write_bytes(b"".join(records))
    if index:
        offsets = np.cumsum([0, *map(len, records[:-1])])
        lines = [f"{first + key}\t{offset}\n" for key, offset in enumerate(offsets)]
        path.with_suffix(".idx").write_text("".join(lines))
    return path


def faces(folder: Path, *, header: bool = True, index: bool = True) -> Path:
    """Three people with two, three and one image, whose colours tell them apart."""
    people = [5, 5, 9, 9, 9, 40]
    records = [image_record(0, png(number), (float(p), 0.0)) for number, p in enumerate(people)]
    if header:
        # InsightFace: images are records 1 to 6, identities 7 to 9.
        ranges = [(1.0, 3.0), (3.0, 6.0), (6.0, 7.0)]
        records = [image_record(0, b"", (7.0, 10.0)), *records]
        records += [image_record(0, b"", each) for each in ranges]
    return write(folder, records, index=index)


def settings(root: Path, **keys) -> DataSettings:
    return DataSettings.model_validate({"name": "recordio", "root": str(root), **keys})


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_images_and_identities_of_a_record_file(tmp_path, header, index, stream):
    found = load_recordio(settings(faces(tmp_path, header=header, index=index), stream=stream))
    assert found.train_labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert found.class_names == ("5", "9", "40")
    assert tuple(found.train_images.shape) == (6, 3, 8, 8)
    chosen = found.train_images[torch.tensor([5, 0])]
    assert chosen[:, 0].unique(dim=0)[:, 0, 0].tolist() == [0, 5]
    assert chosen[0, 0, 0, 0] == 5
    assert len(found.test_labels) == 0


@given(st.lists(st.sampled_from([WORD, b"ab", b"\0\0\0\0", b"x"]), max_size=12))
def test_a_record_may_hold_the_magic_number(tmp_path_factory, pieces):
    content = b"".join(pieces)
    folder = tmp_path_factory.mktemp("magic")
    file = RecordFile(
        write(folder, [record(content), record(b"end")], index=len(content) % 2 == 0)
    )
    assert [file.read(offset) for offset in file.offsets.values()] == [content, b"end"]


def test_images_are_read_when_they_are_looked_at(tmp_path):
    path = faces(tmp_path)
    images = load_recordio(settings(path, stream=True, size=4)).train_images
    assert tuple(images.subset(torch.tensor([1, 2])).joined(images).shape) == (8, 3, 4, 4)
    assert images.fingerprint() != images.subset(slice(2)).fingerprint()
    with path.open("r+b") as file:  # The image of the first person goes to pieces.
        file.seek(60)
        file.write(b"\0" * 30)
    with pytest.raises(OSError, match="cannot be read"):
        images[slice(0, 1)]


@pytest.mark.parametrize("index", [True, False])
@given(st.floats(0.01, 0.99))
def test_a_torn_file_is_one_line(tmp_path_factory, index, share):
    path = faces(tmp_path_factory.mktemp("torn"), index=index)
    os.truncate(path, int(path.stat().st_size * share))
    said = None
    try:
        load_recordio(settings(path))
    except DataError as error:
        said = str(error)
    # Cut between two records, nothing tells that more were there but an index.
    assert said is not None or not index
    assert said is None or ("train.rec" in said and "\n" not in said)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b""), "has no records"),
        (lambda p: p.write_bytes(b"hello, this is no record file"), "there is no whole record"),
        (lambda p: p.with_suffix(".idx").write_text("one two"), "is no index"),
        (lambda p: p.with_suffix(".idx").write_text("0\t-4\n"), "there is no whole record"),
        (lambda p: p.with_suffix(".idx").write_text("0\t999999\n"), "there is no whole record"),
        (lambda p: write(p.parent, [image_record(1, b"no image")]), "cannot be read"),
        (lambda p: write(p.parent, [record(b"short")]), "there is no whole record"),
        (lambda p: (p.parent / "second.rec").touch(), "second.rec, train.rec"),
        (lambda p: p.unlink(), "one .rec file"),
    ],
)
def test_damage_of_record_files_is_one_line(tmp_path, damage, message):
    path = faces(tmp_path)
    if path.stat().st_size and damage.__code__.co_names[:1] == ("write_bytes",):
        path.with_suffix(".idx").unlink()
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        load_recordio(settings(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", [tuple, list])
def test_pickled_pairs(tmp_path, protocol, container):
    path = tmp_path / "lfw.bin"
    content = container(([png(1), png(2), png(3), png(4)], [True, False]))
    path.write_bytes(pickle.dumps(content, protocol))
    found = load_bin(path, channels=3, size=4)
    assert found.name == "lfw"
    assert found.pairs.tolist() == [[0, 1], [2, 3]]
    assert found.same.tolist() == [True, False]
    assert found.images[slice(None)][:, 0, 0, 0].tolist() == [1, 2, 3, 4]


def test_pairs_that_python_2_pickled(tmp_path):
    """Strings of bytes, which protocol 2 of Python 2 wrote as such."""
    strings = b"".join(b"T" + struct.pack("<i", len(p)) + p for p in (png(1), png(2)))
    path = tmp_path / "old.bin"
    path.write_bytes(b"\x80\x02(](" + strings + b"e](\x88et.")
    assert load_bin(path, channels=1, size=8).same.tolist() == [True]


class Calls:
    """A pickle that calls: what ``__reduce__`` names would run."""

    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


def hostile() -> dict[str, bytes]:
    mark = "/tmp/optnas-was-here"
    calls = {
        "os.system": Calls(os.system, (f"touch {mark}",)),
        "eval": Calls(eval, (f"open({mark!r}, 'w')",)),
        "open": Calls(open, (mark, "w")),
        "encode": Calls(__import__("_codecs").encode, ("x", "rot13")),
        "getattr": Calls(getattr, ("x", "upper")),
    }
    found = {name: pickle.dumps(([call], [True])) for name, call in calls.items()}
    found["array"] = pickle.dumps((np.zeros(3), [True]))
    found["numbers"] = pickle.dumps(([1, 2], [True]))
    found["words"] = pickle.dumps((["a", "b"], [True]))
    found["odd"] = pickle.dumps(([b"a"], [True]))
    found["no booleans"] = pickle.dumps(([b"a", b"b"], [1]))
    found["empty lists"] = pickle.dumps(([], []))
    found["persistent"] = b"\x80\x02Pwho\n."
    found["extension"] = b"\x80\x02\x82\x01."
    found["torn"] = pickle.dumps(([png(1), png(2)], [True]))[:-20]
    found["nothing"] = b""
    found["text"] = b"no pickle at all\nof two lines"
    found["endless"] = b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**60)
    return found


@pytest.mark.parametrize(("name", "content"), hostile().items(), ids=hostile())
def test_hostile_and_damaged_pickles_are_one_line_and_nothing_runs(tmp_path, name, content):
    mark = Path("/tmp/optnas-was-here")
    mark.unlink(missing_ok=True)
    path = tmp_path / "evil.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"evil.bin is no set of pairs") as error:
        load_bin(path, channels=3, size=8)
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_lists_of_pairs(tmp_path):
    for number, name in enumerate(("Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0002", "Bo/Bo_0003")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(number + 1))
    lfw, plain = tmp_path / "pairs.txt", tmp_path / "plain.txt"
    lfw.write_text("10\t300\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBo\t3\n\n")
    files = [f"{name}.png" for name in ("Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0002")]
    plain.write_text(f"{files[0]} {files[1]} 1\n{files[1]} Bo/Bo_0003.png 0\n")
    one, other = (load_pairs(path, channels=3, size=8) for path in (lfw, plain))
    assert one.same.tolist() == other.same.tolist() == [True, False]
    assert one.images[torch.from_numpy(one.pairs[1])][:, 0, 0, 0].tolist() == [1, 3]
    assert other.images[torch.from_numpy(other.pairs[1])][:, 0, 0, 0].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pairs"),
        ("10 300\n", "lists no pairs"),
        ("a b c d e\n", "line 1: expected"),
        ("a.png b.png 2\n", "line 1: expected"),
        ("10\nAnn 1 2\n", "line 2: .* does not exist"),
        ("a.png b.png 1\n", "line 1: .*a.png does not exist"),
    ],
)
def test_bad_lists_of_pairs_are_one_line(tmp_path, text, message):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_pairs(path, channels=3, size=8)


def ijb(folder: Path) -> Path:
    """Three images of two templates; the landmarks are those of an aligned face, moved."""
    (folder / "meta").mkdir()
    (folder / "loose_crop").mkdir()
    tid_mid, points = [], []
    for number, (template, medium) in enumerate(((11, 1), (11, 2), (12, 5))):
        name = f"{number}.jpg"
        (folder / "loose_crop" / name).write_bytes(png(100 * number, 150))
        tid_mid.append(f"{name} {template} {medium}")
        moved = (REFERENCE + 10).round(3).flatten().tolist()
        points.append(" ".join(map(str, (name, *moved, 0.99))))
    (folder / "meta" / "ijbb_face_tid_mid.txt").write_text("\n".join(tid_mid))
    (folder / "meta" / "ijbb_name_5pts_score.txt").write_text("\n".join(points))
    (folder / "meta" / "ijbb_template_pair_label.txt").write_text("11 12 0\n11 11 1\n")
    return folder


def test_templates_of_ijb(tmp_path):
    found = load_templates(ijb(tmp_path), channels=3, size=112)
    assert found.name == "IJBB"
    assert (found.templates.tolist(), found.media.tolist()) == ([11, 11, 12], [1, 2, 5])
    assert (found.pairs.tolist(), found.same.tolist()) == ([[11, 12], [11, 11]], [False, True])
    pixels = found.images[slice(None)]
    assert tuple(pixels.shape) == (3, 3, 112, 112)
    assert pixels[:, 0, 56, 56].tolist() == [0, 100, 200]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ijbb_face_tid_mid", "0.jpg 11\n", "should have a name and 2 numbers"),
        ("ijbb_name_5pts_score", "x", "should have a name and 11 numbers"),
        ("ijbb_template_pair_label", "11 99 1\n", "compares the template 99"),
        ("ijbb_face_tid_mid", "1.jpg 11 1\n", "do not name the same images"),
    ],
)
def test_damage_of_ijb_is_one_line(tmp_path, name, text, message):
    folder = ijb(tmp_path)
    (folder / "meta" / f"{name}.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_templates(folder, channels=3, size=112)


@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-90, 90), st.floats(-90, 90))
def test_a_similarity_is_found_exactly(angle, scale, x, y):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = REFERENCE @ turn.T + np.array((x, y))
    expected = np.column_stack((turn, (x, y)))
    np.testing.assert_allclose(similarity(REFERENCE, points), expected, atol=1e-8)


@given(st.lists(st.tuples(st.floats(0, 99), st.floats(0, 99)), min_size=5, max_size=5))
def test_no_other_similarity_is_nearer(points):
    points = np.array(points)
    if np.ptp(points, axis=0).max() < 1:
        return
    matrix = similarity(points)

    def distance(matrix):
        return np.square(points @ matrix[:, :2].T + matrix[:, 2] - REFERENCE).sum()

    for a, b, x, y in np.eye(4) * 1e-3:
        step = np.array([[a, -b, x], [b, a, y]])
        assert distance(matrix) <= min(distance(matrix + step), distance(matrix - step)) + 1e-9


def test_alignment_moves_pixels_where_landmarks_go():
    """A turned and enlarged picture comes back to what it was."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
    face = coarse.resize((112, 112), Image.Resampling.BICUBIC)
    shifted = Image.new("L", (140, 130))
    shifted.paste(face, (17, 9))
    turned = face.transpose(Image.Transpose.ROTATE_90)
    back = np.column_stack((REFERENCE[:, 1], 111 - REFERENCE[:, 0]))
    moved = [(face, REFERENCE), (shifted, REFERENCE + np.array((17, 9))), (turned, back)]
    for picture, landmarks in moved:
        difference = np.asarray(aligned(picture, landmarks), int) - np.asarray(face, int)
        assert np.abs(difference).max() <= 1
    small = aligned(face, REFERENCE, 56)
    assert small.size == (56, 56)
    for points in (REFERENCE[:4], np.zeros((5, 2)), np.full((5, 2), np.nan)):
        with pytest.raises(ValueError, match="Landmarks must"):
            aligned(face, points)


@pytest.mark.skipif(not ORL.exists(), reason="needs shared data")
def test_orl():
    found = load_orl(settings(ORL))
    assert tuple(found.train_images.shape) == (400, 1, 112, 92)
    assert found.train_labels.bincount().tolist() == [10] * 40
    assert tuple(load_orl(settings(ORL.parent, size=64)).train_images.shape[1:]) == (1, 64, 64)
    with pytest.raises(DataError, match="does not take `stream`"):
        load_orl(settings(ORL, stream=True))
    split = load_faces(settings(ORL, validation=6).model_copy(update={"name": "orl"}), 3).split(
        test=10, seed=3
    )
    assert split.test_names == tuple(map(str, range(31, 41)))
    names = set(split.class_names), set(split.validation_names), set(split.test_names)
    assert list(map(len, names)) == [24, 6, 10]
    assert len(set.union(*names)) == 40
    final = split.with_validation_in_training()
    assert (final.classes, len(final.train_labels)) == (30, 300)
    assert final.train_labels.bincount().tolist() == [10] * 30


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", pickle.dumps({"images": 1})])
def test_a_file_that_is_not_orl_is_one_line(tmp_path, content):
    path = tmp_path / "orl_faces.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not hold the ORL faces"):
        load_orl(settings(path))
    with pytest.raises(DataError, match="does not exist"):
        load_orl(settings(tmp_path / "other.npz"))
