"""Composition made faster gives what OmegaConf's own loader and parser give."""

import copy
from pathlib import Path

import pytest
import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import OmegaConf, _utils, base, grammar_parser
from yaml.constructor import ConstructorError

from benchmarks.config.fast_composition import speed_up
from benchmarks.config.trial import CONF

speed_up()
FILES = sorted(Path(CONF).rglob("*.yaml"))


def slow_loader() -> type:
    """OmegaConf's own."""
    [own] = [one for one in _utils.get_yaml_loader().__mro__ if one.__name__ == "OmegaConfLoader"]
    return own


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML without libyaml")
def test_every_file_is_read_as_by_omegaconfs_own_loader() -> None:
    loader = _utils.get_yaml_loader()
    assert loader is not slow_loader() and len(FILES) > 100
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert repr(yaml.load(text, loader)) == repr(yaml.load(text, slow_loader())), path
    values = (
        "a: 1e3\nb: 2020-01-01\nc: .5\nd: 1_0\ne: !!python/object/apply:pathlib.PosixPath [x, y]\nf: [on, ~, 0x1F]\n"
    )
    assert repr(yaml.load(values, loader)) == repr(yaml.load(values, slow_loader()))
    with pytest.raises(ConstructorError, match="found duplicate key a"):
        yaml.load("a: 1\na: 2\n", loader)


def test_an_interpolation_is_parsed_once_and_resolved_anew() -> None:
    text = "${a}-${b.c}"
    assert base.parse(text) is base.parse(text)
    for value in (1, 2):
        config = OmegaConf.create(
            {"a": value, "b": {"c": value + 1}, "text": text, "nested": "${b.${key}}", "key": "c"}
        )
        assert (config.text, config.nested) == (f"{value}-{value + 1}", value + 1)
    assert base.parse.__wrapped__ is grammar_parser.parse  # type: ignore[attr-defined]
    speed_up()
    assert base.parse.__wrapped__ is grammar_parser.parse  # type: ignore[attr-defined]


def test_metadata_is_copied_as_by_pythons_own_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal, and with flags and kept results of its own, also where there are none yet."""
    config = OmegaConf.create({"a": {"b": [1, None, "${a}"]}, "c": "x"}, flags={"struct": True})
    config._metadata.resolver_cache["env"]["HOME"] = ["/root"]
    nodes = [config, config.a, config.a.b, config._get_node("c"), config.a.b._get_node(2)]
    copies = [copy.deepcopy(node._metadata) for node in nodes]
    monkeypatch.delattr(base.Metadata, "__deepcopy__")
    for node, copied in zip(nodes, copies, strict=True):
        own = node._metadata
        assert type(copied) is type(own) and vars(copied) == vars(copy.deepcopy(own))
        copied.flags["readonly"] = True
        copied.resolver_cache["env"]["HOME"] = copied.resolver_cache["env"].get("HOME", []) + ["changed"]
        assert "readonly" not in own.flags and "changed" not in own.resolver_cache["env"].get("HOME", [])


def test_a_file_is_read_again_only_where_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SourcesRegistry.instance().resolve("file")
    assert files.load_config.__wrapped__.__qualname__ == "FileConfigSource.load_config"  # Hydra's own
    own = files(provider="main", path=f"file://{CONF}")
    for path in FILES:
        name = str(path.relative_to(CONF))
        for _ in range(2):
            assert repr(own.load_config(name)) == repr(files.load_config.__wrapped__(own, name))
    source = files(provider="main", path=f"file://{tmp_path}")
    path = tmp_path / "one.yaml"
    path.write_text("# @package _global_\na: {b: 1}\n")
    first = source.load_config("one")
    first.config.a.b, first.header["package"] = 5, None
    reads = []
    monkeypatch.setattr(OmegaConf, "load", lambda file, load=OmegaConf.load: reads.append(file) or load(file))
    again = source.load_config("one")
    assert (again.config, again.header["package"], reads) == ({"a": {"b": 1}}, "_global_", [])
    path.write_text("a: {b: 23}\n")
    changed = source.load_config("one")
    assert (changed.config, changed.header["package"], len(reads)) == ({"a": {"b": 23}}, None, 1)
    path.unlink()
    with pytest.raises(ConfigLoadError, match="Config not found"):
        source.load_config("one")
