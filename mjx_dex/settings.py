"""Configurations: defaults, then a YAML file, then the command line.

A file holds only what differs from the defaults. Unknown keys and wrong types are
errors that name the file and the key; keys of earlier versions are left out and said.
"""

import argparse
import dataclasses
import difflib
import functools
import logging
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
import yaml

from mjx_dex.config import Config
from mjx_dex.files import write_at_once

PRESETS = Path(__file__).resolve().parent / "configs"
"""Configurations that come with mjx_dex."""

RETIRED = {
    "physics.graph_mode": "the warp engine always captures one graph per control step",
}
"""Keys that old runs and bundles hold, and what happens now in their place."""

log = logging.getLogger("mjx_dex")

C = TypeVar("C")
B = TypeVar("B")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file and key."""


def load(
    path: str | Path, kind: Callable[[], B] = Config, presets: Path = PRESETS
) -> B:
    """Read a configuration file.

    Args:
        path: a file, or the name of a preset such as ``quickstart``.
        kind: of configuration; its defaults are what the file does not hold.
        presets: folder of those.

    Raises:
        ConfigError: if it cannot be read or holds an unknown key or a wrong value.
    """
    path = _find(path, presets)
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return parse(values or {}, str(path), kind)


def parse(values: dict[str, Any], where: str, kind: Callable[[], B] = Config) -> B:
    """A configuration from values by name; what is not there is as by default.

    Args:
        values: nested, as ``plain`` gives them.
        where: they are from, for messages.
        kind: of configuration.

    Raises:
        ConfigError: if there is an unknown key or a wrong value.
    """
    return _overlay(kind(), values, where=where, prefix="")


def save(config: Any, path: Path) -> None:
    """Write every value of ``config``; the file is itself a valid ``--config``."""
    write_at_once(path, yaml.safe_dump(plain(config), sort_keys=False))


def plain(config: Any) -> dict[str, Any]:
    """Every value, as YAML and JSON hold it."""
    return _plain(dataclasses.asdict(config))


def from_command_line(
    command: type[C], base: Any, arguments: Sequence[str], description: str
) -> C:
    """Parse a command whose options are its own and all of a configuration's.

    Args:
        command: a dataclass derived from the configuration's.
        base: the configuration that the options change.
        arguments: the command line without the program's name.
        description: for ``--help``.
    """
    default = command(**{f.name: getattr(base, f.name) for f in _fields(type(base))})
    return tyro.cli(
        command, args=list(arguments), default=default, description=description
    )


def early_option(arguments: Sequence[str], flag: str) -> str | None:
    """The value of one option, before the rest can be parsed."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(flag, flag.replace("-", "_").replace("__", "--", 1), dest="it")
    return parser.parse_known_args(arguments)[0].it


def config_of(command: Any, kind: type[B] = Config) -> B:
    """The configuration alone, of a command derived from its dataclass."""
    return kind(**{f.name: getattr(command, f.name) for f in _fields(kind)})


def differences(first: Config, second: Config) -> list[str]:
    """Values in which two configurations differ.

    >>> differences(Config(), Config(seed=1))
    ['seed 0, not 1']
    """
    values, others = (_flat(dataclasses.asdict(config)) for config in (first, second))
    return [
        f"{name} {value}, not {others[name]}"
        for name, value in values.items()
        if value != others[name]
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    result = {}
    for key, value in values.items():
        nested = isinstance(value, dict)
        result |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return result


def _find(path: str | Path, presets: Path) -> Path:
    candidates = (Path(path), presets / f"{path}.yaml")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(p.stem for p in presets.glob("*.yaml")))
    raise ConfigError(f"--config: no file {path}, and the presets are {names}")


def _overlay(config: Any, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {prefix or 'the file'} must hold keys and values")
    hints = typing.get_type_hints(type(config))
    changes = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in RETIRED:
            _say_retired(where, name)
            continue
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            raise ConfigError(f"{where}: unknown key {name}{hint}")
        if dataclasses.is_dataclass(hints[key]):
            changes[key] = _overlay(getattr(config, key), value, where, f"{name}.")
        else:
            changes[key] = _convert(value, hints[key], f"{where}: {name}")
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


@functools.cache  # a file may be read more than once: that is said once
def _say_retired(where: str, name: str) -> None:
    log.info("%s: %s is not used any more: %s", where, name, RETIRED[name])


def _convert(value: Any, hint: Any, name: str) -> Any:
    """Check a YAML value against a field's type; numbers like 3e-4 come as text."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(f"{name} is {value!r}; it must be one of {options}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        return _convert(value, options[0], name)
    if origin is tuple:
        return _convert_tuple(value, options, name)
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise ConfigError(f"{name} is {value!r}; it must be of type {hint.__name__}")


def _convert_tuple(value: Any, options: tuple, name: str) -> tuple:
    if not isinstance(value, list):
        raise ConfigError(f"{name} is {value!r}; it must be a list")
    if options[-1] is Ellipsis:
        options = options[:1] * len(value)
    if len(value) != len(options):
        raise ConfigError(
            f"{name} has {len(value)} entries; it must have {len(options)}"
        )
    return tuple(
        _convert(x, hint, f"{name}[{i}]")
        for i, (x, hint) in enumerate(zip(value, options, strict=True))
    )


def _plain(value: Any) -> Any:
    """Tuples to lists, which YAML can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _fields(cls: type) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(cls)
