"""Experiments of one's own: their values, their rows, and what is refused of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.config import folders
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial

HEADER = "# @package _global_\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Trial]]:
    """Return the trials of an experiment with this content, and of overrides."""
    (tmp_path / "experiment").mkdir()
    monkeypatch.setattr(folders, "_added", [tmp_path])

    def trials(content: str, *overrides: str) -> list[Trial]:
        (tmp_path / "experiment" / "mine.yaml").write_text(content)
        made = expand(["experiment=mine", *overrides], multirun=False)
        assert all(isinstance(trial, Trial) for trial in made), made
        return [trial for trial in made if isinstance(trial, Trial)]

    return trials


def test_an_experiments_values_come_before_the_usual_ones_and_after_the_command_lines(own) -> None:
    content = f"{HEADER}seed: 3\noutput_root: /elsewhere\nlaunch: {{workers: 2, retries: 1}}\nrecipe: {{epochs: 7}}\n"
    [trial] = own(content, "launch.retries=4")
    assert (trial.config["seed"], trial.config["output_root"], trial.config["recipe"]["epochs"]) == (3, "/elsewhere", 7)
    assert (trial.config["launch"]["workers"], trial.config["launch"]["retries"]) == (2, 4)


def test_an_experiment_without_its_first_line_is_refused(own) -> None:
    with pytest.raises(ConfigurationError) as error:
        own("seed: 3\n")
    assert str(error.value) == 'experiment mine: its file begins with the line "# @package _global_"'


def test_a_row_is_a_text_whatever_its_id_looks_like(own) -> None:
    ids = {
        **{"20": "20", "1e3": "1000.0", "true": "True", "'null'": "null", "nan_": "nan_", "2.6e6_x": "2.6e6_x"},
        **{"'a,b'": "a,b", "a=b": "a=b", "'it''s'": "it's", '"[a]"': "[a]", "a b": "a b", "'~/x'": "~/x"},
    }
    rows = "".join(f"  {written}: model=resnet seed={place}\n" for place, written in enumerate(ids))
    made = own(f"{HEADER}rows:\n{rows}  other: model=resnext\n")
    assert [trial.config["row"] for trial in made] == [*ids.values(), "other"]
    assert [trial.config["seed"] for trial in made[:-1]] == [*range(len(ids))]


def test_a_row_that_looks_like_a_number_is_chosen_by_its_id(own) -> None:
    rows = f"{HEADER}rows: {{20: seed=1, 30: seed=2, 40: seed=3}}\n"
    assert [trial.config["row"] for trial in own(rows, "row=30")] == ["30"]
    assert [trial.config["row"] for trial in own(rows, "row=20,40")] == ["20", "40"]


def test_rows_are_those_of_the_file_as_it_is_now(own) -> None:
    for rows in ({"a": "seed=1"}, {"a": "seed=2", "b": "seed=3"}, {"b": "seed=33"}):
        made = own(f"{HEADER}rows: {rows}\n")
        assert {trial.config["row"]: f"seed={trial.config['seed']}" for trial in made} == rows


def test_a_rows_value_may_be_in_quotes(own) -> None:
    [trial] = own(f"{HEADER}rows:\n  a: model=resnet name=\"my net\" 'data.mean=[0.1]'\n")
    assert (trial.config["name"], trial.config["data"]["mean"]) == ("my net", [0.1])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("{a: {model: resnet}}", ", row a: it is a text, as model=resnet seed=1, got {'model': 'resnet'}"),
        ("{a: [model=resnet]}", ", row a: it is a text, as model=resnet seed=1, got ['model=resnet']"),
        ("{a: 5}", ", row a: it is a text, as model=resnet seed=1, got 5"),
        ("{a: 'name=\"my net'}", ", row a: No closing quotation"),
        ("{a: model=resnet 20}", ", row a: '20' is not of the form key=value"),
        ("{a: 'seed=0,1'}", ", row a: seed=0,1 is a sweep over several values: write a row for each, or"),
        ("5", ": rows is a block of keys, got 5"),
        ("null", ": rows is a block of keys, got null"),
    ],
)
def test_rows_of_another_form_are_refused_by_their_name(own, rows: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        own(f"{HEADER}rows: {rows}\n")
    assert str(error.value).startswith(f"experiment mine{said}") and "\n" not in str(error.value)


def test_a_list_in_the_place_of_a_block_is_said_with_its_file(own) -> None:
    for content in ("rows: [model=resnet]", "launch: [1]"):
        with pytest.raises(ConfigurationError) as error:
            own(f"{HEADER}{content}\n")
        assert str(error.value) == "In 'experiment/mine': a list stands where a block of keys is expected"
