"""What a model's YAML says about its family."""

import pytest

from benchmarks.config.about import DASHES, MARKERS, Look, Matching, Second, look_of_family, read_look, read_matching
from benchmarks.config.compose import expand
from benchmarks.config.folders import choices
from benchmarks.config.trial import ConfigurationError, Trial, config_hash


def one(*overrides: str) -> Trial:
    [trial] = expand(overrides, multirun=False)
    assert isinstance(trial, Trial)
    return trial


def test_every_model_says_its_look_and_its_width_and_no_two_look_alike() -> None:
    looks = [look_of_family(family) for family in choices("model")]
    assert None not in looks
    for cue in ("colour", "marker", "glyph"):
        assert len({getattr(look, cue) for look in looks}) == len(looks)
    assert {look.dash for look in looks if look} == set(DASHES)  # plotly has no more
    assert look_of_family("vgg") is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("about.look.marker=blob", "about.look.marker is one of circle, square, "),
        ("about.look.dash=dashed", "about.look.dash is one of solid, dash, "),
        ("about.look.colour=red", "about.look.colour is as \"#0072B2\", in quotes, got 'red'"),
        ("~about.look.dash", "about.look has a colour, a marker and a dash"),
        ("+about.look.size=3", "about.look has a colour, a marker and a dash"),
        ("+about.colour=red", "about has a look and a match"),
        ("about.match=base_channels", "about.match is as {width: base_channels}"),
        ("+about.match.hight=4", "about.match is as {width: base_channels}"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(override: str, line: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        one("model=resnet", override)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_block_is_read() -> None:
    about = {"look": {"colour": "#112233", "marker": "star", "dash": "dot"}, "match": {"width": "w"}}
    assert read_look(about) == Look("#112233", "star", "dot") and read_look({}) is None
    assert read_matching(about) == Matching("w", ()) and read_matching({}) is None
    second = {"argument": "depth", "step": 6, "where": {"stem": "cifar"}}
    assert read_matching({"match": {"width": "w", "second": [second]}}) == Matching(
        "w", (Second("depth", 6, 1, {"stem": "cifar"}),)
    )
    assert len(set(MARKERS.values())) == len(MARKERS) and len(set(DASHES)) == len(DASHES)


def test_the_block_is_no_part_of_what_a_run_computes() -> None:
    plain, other = one("model=resnet"), one("model=resnet", "about.look.marker=star")
    assert (plain.directory, config_hash(plain.config)) == (other.directory, config_hash(other.config))
    assert other.config["about"]["look"]["marker"] == "star" and other.overrides == {}


@pytest.mark.parametrize(
    ("model", "data", "digest"),
    [
        ("resnet", "digits", "3b6406bb6fcb6fb8cddc8c6001bc258a8d7e44ac48331f8a0763ce81739db8cf"),
        ("resnext", "digits", "e75c6147182392066de3c3344be4c17e46ce1ed5903e83c7cc9d7b309b743108"),
        ("densenet", "cifar10", "088f2c46ed076b7ad59983a47869c3cde64a73eddff8f4aa0950fd3f126f587d"),
        ("unet", "nuclei", "caa30d7e293ca5e54ce3b3319c3b25c635039dda88a6b5a1140adf330bca8d43"),
    ],
)
def test_finished_runs_of_earlier_versions_stay_finished(model: str, data: str, digest: str) -> None:
    """The hashes that version 0.1.0 wrote into the records of these configurations."""
    assert config_hash(one(f"model={model}", f"data={data}").config) == digest
