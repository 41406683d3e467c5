"""How a rank is stopped where a library's cleaning up fails after the signal."""

import pytest
from omegaconf import OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from benchmarks.training.stopping import Interrupted, interruption_behind


def test_an_error_of_cleaning_up_after_a_signal_is_the_interruption() -> None:
    config = OmegaConf.create([1])

    def cut_short() -> None:
        try:
            with flag_override(config, ["struct", "readonly"], False):
                assert config._get_flag("readonly") is False
                config.__dict__["_content"] = [None]  # as amid the building of a list
                raise Interrupted("SIGTERM")
        except AttributeError as error:  # OmegaConf raises another error in place of its own
            raise OmegaConfBaseException(str(error)) from None

    with pytest.raises(OmegaConfBaseException, match="_invalidate_flags_cache") as raised:
        cut_short()
    assert str(interruption_behind(raised.value)) == "SIGTERM"


def test_an_error_that_no_signal_led_to_is_one() -> None:
    assert interruption_behind(ValueError("no such image")) is None
    assert str(interruption_behind(Interrupted("SIGINT"))) == "SIGINT"
