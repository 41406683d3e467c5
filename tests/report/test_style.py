"""How families look: by their file, by their record, or the neutral look."""

from pathlib import Path

import pytest
from support.records import make_run

from benchmarks.config.about import DASHES, MARKERS, NEUTRAL, Look
from benchmarks.records.runs import load_runs
from benchmarks.report.page import write_page
from benchmarks.report.rendering import _environment
from benchmarks.report.style import family_look, legend_key, look_of

OWN = {"colour": "#8B4513", "marker": "star", "dash": "longdashdot"}


def test_a_look_is_that_of_the_file_else_of_the_record_else_neutral() -> None:
    assert family_look("resnet") == family_look("resnet", OWN) != NEUTRAL
    assert family_look("mynet", OWN) == Look(**OWN)
    assert family_look("mynet") == family_look("mynet", {}) == NEUTRAL


@pytest.mark.parametrize(
    "recorded",
    [{"colour": "#8B4513"}, OWN | {"marker": "<script>"}, OWN | {"colour": "url(x)"}, OWN | {"dash": "wavy"}],
)
def test_a_record_whose_look_cannot_be_drawn_gets_the_neutral_one(recorded: dict[str, str], tmp_path: Path) -> None:
    make_run(tmp_path, name="mynet8", look=recorded)
    [run] = load_runs(tmp_path)[0]
    assert look_of(run) == NEUTRAL and legend_key(run) == ""
    assert "mynet8" in write_page(tmp_path).read_text(encoding="utf-8")


def test_the_page_draws_every_marker_and_dash_that_a_file_may_name() -> None:
    drawn = _environment().get_template("macros.html").module
    assert set(vars(drawn)["symbols"]) == set(MARKERS) and set(vars(drawn)["dashes"]) == set(DASHES)


def test_a_family_with_a_look_has_its_own_place_in_the_legend(tmp_path: Path) -> None:
    make_run(tmp_path, name="mynet8", look=OWN)
    make_run(tmp_path, name="vgg11")
    make_run(tmp_path, name="alexnet")
    page = write_page(tmp_path).read_text(encoding="utf-8")
    assert 'data-family="mynet">' in page and "--family:#8B4513" in page
    assert 'data-family="">' in page and "alexnet, vgg" in page.replace("vgg, alexnet", "alexnet, vgg")
    assert '"mynet":{"colour":"#8B4513","symbol":"star"' in page
