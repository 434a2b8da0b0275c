"""A contact sheet of what a network sees, and the page that shows it."""

import io

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

from optnas.cli.commands import app
from optnas.config.settings import DataSettings
from optnas.objectives.data.contact import CLASSES, PER_CLASS, contact_sheet
from optnas.objectives.data.images import load_images


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_every_class_is_shown_as_it_is_judged_and_as_it_is_trained_on():
    images = load_images(DataSettings(name="digits"), 0)
    strips = images.contact_sheet()
    assert [strip.class_name for strip in strips] == list(images.class_names)
    plain, augmented = (pixels_of(x) for x in (strips[3].plain, strips[3].augmented))
    assert plain.shape == augmented.shape == (64, PER_CLASS * 68 - 4, 4)
    first = images.train_images[images.train_labels == 3][0, 0].numpy()
    assert np.array_equal(plain[::8, :64:8, 0], first)
    assert not np.array_equal(plain, augmented)
    assert np.array_equal(pixels_of(images.contact_sheet()[3].augmented), augmented)


def test_without_augmentation_both_are_the_same_and_large_sets_are_cut():
    images = load_images(DataSettings(name="digits", augment=()), 0)
    for strip in images.contact_sheet():
        difference = pixels_of(strip.plain).astype(int) - pixels_of(strip.augmented)
        assert abs(difference).max() <= 1
    labels = torch.arange(60)
    many = torch.zeros(60, 4, 5, 6, dtype=torch.uint8)
    names = [str(i) for i in range(60)]
    sheet = contact_sheet(many, labels, names, images.augmentation, ([0.5] * 4, [1.0] * 4))
    assert len(sheet) == CLASSES


def test_the_page_shows_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text("study: <b>s</b>\ndata: digits\n".replace("<b>s</b>", "s"))
    result = CliRunner().invoke(app, ["data", "s.yaml", "--html", "page.html"])
    assert result.exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 20
    assert "What the network sees" in page
    assert "<script src" not in page
