"""What a report says of a network that was trained and tested, to somebody who did not run it."""

import csv
import dataclasses
import io
import math
import re

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from PIL import Image
from reports import described, grown, judged_by, keep
from searches import opened, trial

from optnas.errors import UserError
from optnas.objectives.kept.judgement import Judgement, Mistake
from optnas.objectives.kept.mistakes import SIDE, mistakes_png
from optnas.pages.markdown import markdown
from optnas.report import page as pages
from optnas.report import tested
from optnas.report.costs import NO_COSTS, Footprint, NetworkCosts
from optnas.report.files import write_report
from optnas.report.page import report, report_page
from optnas.report.result import lead, what_was_found
from optnas.report.story import why_it_stopped
from optnas.report.tested import kept_networks
from optnas.report.totals import spent_by_device
from optnas.report.trials import trials_csv
from optnas.study.networks import networks_of

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def found(tmp_path):
    return grown(tmp_path)


def wilson(right: int, images: int) -> tuple[float, float]:
    """The interval by its formula (Wilson 1927), for the normal quantile of 97.5 %."""
    z, share = 1.959963984540054, right / images
    middle = share + z * z / (2 * images)
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images**2))
    return (middle - half) / (1 + z * z / images), (middle + half) / (1 + z * z / images)


def test_the_interval_is_wilsons(found):
    for right, images in ((90, 100), (100, 100), (0, 7), (1797, 1800)):
        keep(found, described(right, images))
        (network,) = kept_networks(found)
        assert network.first.interval == pytest.approx(wilson(right, images), abs=1e-9)
        low, high = (f"{100 * bound:.1f} %" for bound in wilson(right, images))
        said = lead(found, what_was_found(found, [network]))
        assert f"(95 % interval {low} to {high})" in said


def test_the_result_comes_first_and_how_it_was_made_last(found):
    keep(found, described())
    page = report_page(found, "made.yaml")
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        "Result",
        "Data",
        "Search",
        "Networks",
        "Where it errs",
        "Cost",
        "Configuration",
        "Versions and hardware",
    ]
    lead = re.search(r'<p class="lead">(.*?)</p>', page)[1]
    assert lead.startswith("A network that is right on 90.0 % of 100 test images (95 % interval")
    assert "neither the search nor its training had seen" in lead
    assert re.search(r"<details>\s*<summary>The whole configuration</summary>", page)
    assert page.index("<strong>90.0 %</strong>") < page.index("<svg") < page.index('id="data"')


def test_a_network_chosen_by_its_test_is_not_praised(found):
    keep(found, described(chosen_by_test=True))
    assert "too good to be a test accuracy" in report_page(found, "made.yaml")


def test_a_network_that_was_not_tested_says_so(found):
    page = report_page(found, "made.yaml")
    assert "It has not been tested yet" in page
    assert "Where it errs" not in page
    assert "Test accuracy" not in page


def test_a_guess_is_called_one(found):
    keep(found, described(right=36))
    assert "A guess could have this accuracy" in report_page(found, "made.yaml")


def test_a_face_network_is_told_by_its_sets_of_people(found):
    sets = {"held-out people": {"rank1": 0.95, "tar@0.01": 0.5}, "lfw": {"accuracy": math.nan}}
    for ending, rank1 in (("", 0.95), ("-repeat-2", 0.85)):
        sets["held-out people"]["rank1"] = rank1
        keep(found, described(test_accuracy=math.nan, verification=sets, judgement=None), ending)
    page, text = report_page(found, "made.yaml"), markdown(report(found, "made.yaml"))
    assert "A network for faces, tested with 2 sets of people that it had not seen." in page
    assert "- Rank-1 rate: **0.9500** (held-out people, whom it had not seen)" in text
    assert "| held-out people | rank-1 rate | 0.9000 | 0.0707 |" in text
    assert "| lfw | accuracy | nan | nan |" in text
    assert "Where it errs" not in page


def test_what_was_tested_on_the_same_images_stands_beside_it(found):
    keep(found, described())
    keep(found, described(80), "-repeat-2")
    keep(found, described(70), "-reference-resnet18")
    keep(found, described(70, data_sha256="other"), "-reference-resnet50")
    keep(found, described(95, member_accuracies=[0.9, 0.8]), "-ensemble", "ensemble.json")
    kept = kept_networks(found)
    assert [each.name for each in kept] == ["the network found", "ensemble of these", "resnet18"]
    assert [len(each.trainings) for each in kept] == [2, 1, 1]
    text = markdown(report(found, "made.yaml"))
    assert "| the network found | 0.8500 | standard deviation 0.0707 | 2 | 16,254 |" in text
    low, high = wilson(70, 100)
    assert f"| resnet18 | 0.7000 | {low:.4f} to {high:.4f} | 1 | 16,254 |" in text
    assert "resnet50" not in text


def test_networks_that_people_designed_stand_beside_it(found):
    (designed,) = networks_of([trial(0, 0.95, params=7, multiply_adds=9)])
    named = dataclasses.replace(designed, name="ResNet-44")
    text = markdown(report(found, "made.yaml", NetworkCosts(baselines=[named])))
    assert "| ResNet-44 | 0.9500 | 7 | 9 |" in text
    assert "| the network found | 0.9000 | 16,254 | 5,000 |" in text
    page = report_page(found, "made.yaml", NetworkCosts(baselines=[named]))
    assert not re.search(r"<th[^>]*></th>", page)
    assert len(re.findall(r"^\|.*\| complete \|", text, re.M)) == 6
    assert len(re.findall(r"^\|.*\| ResNet-44 \|.*\| complete \|", text, re.M)) == 1


def test_mistakes_are_shown_and_told(found):
    folder = keep(found, described())
    images = torch.arange(100 * 3 * 8 * 6).reshape(100, 3, 8, 6).remainder(251).byte()
    content = mistakes_png(judged_by(described()), images, None)
    (folder / tested.MISTAKES).write_bytes(content)
    fields = described()["judgement"]
    page = report_page(found, "made.yaml")
    shown = re.findall(r'<img src="data:image/png;base64,[^"]+" alt=""><span>([^<]+)</span>', page)
    assert len(shown) == 10
    assert set(shown) == {
        "cat, taken for dog, 80 % sure",
        "dog, taken for &lt;b&gt;owl&lt;/b&gt;, 80 % sure",
        "&lt;b&gt;owl&lt;/b&gt;, taken for cat, 80 % sure",
    }
    rows = re.findall(r'<td class="(right|wrong) s(\d)">(\d+)</td>', page)
    assert [int(count) for _, _, count in rows] == [
        count for row in fields["confusion"] for count in row
    ]
    assert [kind for kind, _, _ in rows] == ["right", *["wrong"] * 3] * 2 + ["right"]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 6), (200, 300), (1, 500)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_of_mistakes_are_the_images(height, width, channels):
    pixels = torch.randint(256, (9, channels, height, width), dtype=torch.uint8)
    names = [f"{n}.png" for n in range(9)]
    chosen = [Mistake(names[n], "a", "b", 0.9) for n in (7, 0)]
    content = mistakes_png(made_of(chosen), pixels, names)
    sheet = np.asarray(Image.open(io.BytesIO(content)))
    side = min(SIDE, max(height, width))
    assert sheet.shape == (2 * side, side, 4)
    if max(height, width) <= SIDE:
        left, top = (side - width) // 2, (side - height) // 2
        shown = sheet[top : top + height, left : left + width]
        expected = pixels[7, :3] if channels >= 3 else pixels[7, :1].expand(3, -1, -1)
        assert (shown[..., :3] == expected.permute(1, 2, 0).numpy()).all()
        assert (sheet[:side, :, 3] == 255).sum() == height * width


def made_of(mistakes: list[Mistake]) -> Judgement:
    return Judgement(9, 0.5, (0, 1), None, None, 0.5, 0.5, 0.5, False, (), (), tuple(mistakes))


def test_pictures_that_are_none_are_left_out(found):
    folder = keep(found, described())
    assert kept_networks(found)[0].mistakes() == []
    contents = [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"]
    for size in ((8, 88), (500, 5000), (8, 8)):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    for content in contents:
        (folder / tested.MISTAKES).write_bytes(content)
        assert kept_networks(found)[0].mistakes() == []
    page = report_page(found, "made.yaml")
    assert "<img" not in page
    assert "The mistakes that it was surest of" in page


def test_a_description_that_is_none_is_left_out_and_said(found):
    judged = described()["judgement"]
    for changes in (
        {"test_accuracy": math.nan},
        {"test_accuracy": 2},
        {"test_images": 0},
        {"params": "many"},
        {"judgement": {"accuracy": 1}},
        {"judgement": judged | {"confusion": [[1]]}},
        {"judgement": judged | {"confusion": [[-1, 0, 0]] * 3}},
    ):
        keep(found, described(**changes))
        with pytest.warns(UserWarning, match="it describes no network"):
            assert kept_networks(found) == []


def test_nothing_in_a_folder_is_markup_or_a_path(found, tmp_path):
    judged = described()["judgement"]
    judged["classes"] = [each | {"name": HOSTILE} for each in judged["classes"]]
    judged["mistakes"] = [
        {"image": "/etc/passwd", "label": HOSTILE, "named": HOSTILE, "probability": 1.0}
    ]
    origin = {"study": HOSTILE, "trial": "/etc/passwd", "data": str(tmp_path)}
    keep(found, described(judgement=judged, origin=origin))
    page = report_page(found, "made.yaml")
    assert "<img" not in page
    assert "onerror=alert(1)>" not in page
    assert page.count("<script>") == 1
    assert "/etc" not in page


def test_a_page_names_no_folder_of_the_machine(found, tmp_path):
    keep(found, described())
    elsewhere = "/srv/photos of me/secret/cat.png"
    found.study.add_trial(trial(5, state=TrialState.FAIL, failure_reason=f"no file '{elsewhere}'"))
    command = f"{tmp_path}/made.yaml"
    for text in (report_page(found, command), markdown(report(found, command))):
        assert str(tmp_path) not in text
        assert "secret" not in text
        assert "cat.png" in text
        assert "optnas run made.yaml" in text
        assert "sqlite:///made.db" in text
    assert "secret" not in trials_csv(found)


def test_the_cost_is_what_the_trials_took(found):
    networks = networks_of(found.study.trials)
    (spent,) = spent_by_device(networks, Footprint()).values()
    # Five times half an hour of two threads at 12 W; 475 g/kWh.
    assert (spent.networks, spent.seconds) == (5, 9000)
    assert spent.watt_hours == pytest.approx(2.5 * 24)
    assert spent.grams == pytest.approx(0.06 * 475)
    text = markdown(report(found, "made.yaml"))
    assert "- CPU time: **2.5 h**" in text
    assert "- Energy: **60 Wh** (estimated; the training device's)" in text
    assert "- CO2e: **28.5 g** (at 475 g per kWh)" in text
    trained = "| final training, the network found"
    keep(found, described(device="a GPU"))  # For 90 seconds at 250 W.
    row = f"{trained}, a GPU | 1 | 0.025 | 6.25 | 2.97 | estimated |"
    assert row in markdown(report(found, "made.yaml"))
    keep(found, described())
    assert f"{trained} | 1 | 0.025 |  |  | not known |" in markdown(report(found, "made.yaml"))
    green = NetworkCosts(Footprint(carbon_intensity=100))
    assert "- CO2e: **6 g** (at 100 g per kWh)" in markdown(report(found, "made.yaml", green))


def test_a_page_that_would_be_too_large_shows_fewer_networks(found, monkeypatch):
    whole = report_page(found, "made.yaml")
    monkeypatch.setattr(pages, "SHOWN", (1000, 2))
    monkeypatch.setattr(pages, "LARGEST", len(whole.encode()) - 1)
    fewer = report_page(found, "made.yaml")
    assert len(fewer) < len(whole)
    assert "The figures show the best 2 networks." in fewer
    assert "Not shown: 3 networks; the CSV file beside this page has all." in fewer
    assert len(trials_csv(found).splitlines()) == 1 + 5


def test_a_search_says_why_it_stopped(tmp_path):
    def story(name, **keys):
        (tmp_path / name).mkdir()
        return why_it_stopped(opened(tmp_path / name, [trial(0, 0.5), trial(1, 0.6)], **keys))

    assert "its budget of 2 trials was used up." in story("full", budget={"trials": 2})
    keys = {"sampler": "stage_wise", "objective": "stage_classification"}
    unfinished = story("own", **keys, budget={"trials": 2})
    assert "used up, before the strategy had come to its end" in unfinished
    assert "stopped by hand" in story("by hand", budget={"trials": 3})
    handle = opened(tmp_path / "by hand")
    handle.study.ask()
    assert why_it_stopped(handle) == "The search goes on: 1 network in training."


def test_markdown_has_what_the_page_has(found):
    keep(found, described())
    text = markdown(report(found, "made.yaml"))
    assert re.findall(r"^## (.*)$", text, re.M)[:3] == ["Result", "Data", "Search"]
    assert "- Test accuracy: **90.0 %**" in text
    assert "&lt;b&gt;owl&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "| 4 | growth | complete | 0.9000 |" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) >= 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_every_trial_is_a_row_of_numbers(found):
    found.study.add_trial(trial(5, 0.1, phase='=HYPERLINK("http://x")'))
    rows = list(csv.DictReader(io.StringIO(trials_csv(found))))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    stored = [each.value for each in found.study.trials]
    assert [float(row["accuracy"]) for row in rows] == stored
    assert rows[5]["phase"] == '\'=HYPERLINK("http://x")'
    assert [row["param:parent"] for row in rows] == ["-1", "0", "0", "0", "1", ""]
    assert float(rows[0]["energy_wh"]) == pytest.approx(12)


def test_the_table_of_trials_stands_beside_the_page(found, tmp_path):
    page, table = write_report(found, "made.yaml", NO_COSTS)
    assert (page.name, table.name) == ("made.html", "made.csv")
    assert write_report(found, "made.yaml", NO_COSTS)[1].read_text().startswith("trial,state,")
    page, table = write_report(found, "made.yaml", NO_COSTS, form="md")
    assert page.read_text().splitlines()[1] == "# Search made"
    page, table = write_report(found, "made.yaml", NO_COSTS, tmp_path / "a.b.md")
    assert (page.read_text()[:4], table.name) == ("<!--", "a.b.csv")
    (tmp_path / "mine.csv").write_text("my,own\n")
    with pytest.raises(UserError, match=r"mine.csv is no table of trials"):
        write_report(found, "made.yaml", NO_COSTS, tmp_path / "mine.html")
    assert not (tmp_path / "mine.html").exists()
    (tmp_path / "made.md").write_text("mine")
    assert write_report(found, "made.yaml", NO_COSTS, form="md")[0].name.startswith("made-")
