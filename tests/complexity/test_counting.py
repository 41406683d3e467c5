"""What no network is made of."""

import pytest

from benchmarks.complexity.counting import build


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing.Net", "No module named 'nothing'"),
        ("torch.nn.Nothing", "'Nothing' is importable from module 'torch.nn'"),
        ("os.system", "'os.system' is blocklisted"),  # by Hydra, which names no further cause
        ("torch.nn.Linear", "unexpected keyword argument 'depth'"),
    ],
)
def test_why_no_network_is_made_of_a_name_is_one_line(target: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        build({"_target_": target, "depth": 20}, (1, 8, 8))
    assert words in str(error.value) and "\n" not in str(error.value)
