"""Configurations: defaults, then a YAML file, then the command line.

A file holds only what differs from the defaults. Unknown keys and wrong types are
errors that name the file and the key; keys of earlier versions are left out and said.
"""

import argparse
import dataclasses
import difflib
import functools
import logging
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from mjx_dex import ranges
from mjx_dex.config import Config
from mjx_dex.ranges import SettingError, check, unchecked
from robot_bridge.files import write_at_once

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
    return parse(read_yaml(path) or {}, str(path), kind)


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
    write_at_once(path, as_yaml(plain(config)))


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
    values = {name: getattr(base, name) for name in ranges.hints(type(base))}
    return parse_arguments(command, arguments, description, command(**values))


def parse_arguments(
    command: type[C],
    arguments: Sequence[str],
    description: str,
    default: C | None = None,
) -> C:
    """Parse a command line.

    Args:
        command: a dataclass of options.
        arguments: the command line without the program's name.
        description: for ``--help``.
        default: values of options that are not given; the dataclass's own if None.

    Raises:
        ConfigError: if an option is unknown or has a wrong value; it names the option.
    """
    given = {} if default is None else {"default": default}
    refuse = functools.partial(_refuse, flags=_flags(command))
    # Checked as a whole, so that values may change together and errors have full names.
    with unchecked(), tyro._errors.on_parse_error(refuse):
        parsed = tyro.cli(
            command, args=list(arguments), description=description, **given
        )
    try:
        check(parsed)
    except SettingError as error:
        flag = error.field.replace("_", "-")
        raise ConfigError(f"--{flag} {error.problem}") from error
    return parsed


def _refuse(event: tyro._errors.ParseErrorEvent, flags: list[str]) -> None:
    """Say what tyro would say in a box in one line.

    Args:
        event: tyro's error.
        flags: of the command.

    Raises:
        ConfigError: with that line.
    """
    if isinstance(event, tyro._errors.UnrecognizedArgs):
        token = event.tokens[0].partition("=")[0]
        close = difflib.get_close_matches(token.replace("_", "-"), flags, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{token} is no option of this command{hint}")
    if isinstance(event, tyro._errors.MissingArgs):
        missing = (x.arg.lowered.metavar for x in event.missing_arguments)
        raise ConfigError(f"give {', '.join(map(str, missing))} (--help says more)")
    argument = getattr(event, "argument", None)
    if argument is None:
        return
    name = argument.display_name()
    if isinstance(event, tyro._errors.InvalidChoice):
        choices = ", ".join(event.choices)
        raise ConfigError(f"{name} is {event.value!r}; it must be one of {choices}")
    if isinstance(event, tyro._errors.InstantiationFailure):
        raise ConfigError(f"{name} {event.message}")
    raise ConfigError(f"{name} lacks a value: {argument.lowered.metavar}")


def _flags(command: type, prefix: str = "--") -> list[str]:
    """Every option of a command."""
    names = []
    for name, hint in ranges.hints(command).items():
        flag = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            names += _flags(hint, f"{flag}.")
        else:
            names.append(flag)
            if hint is bool:
                names.append(f"{prefix}no-{flag.removeprefix(prefix)}")
    return names


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


def read_yaml(path: Path) -> Any:
    """Content of a YAML file; words such as 'on' are text, as in YAML 1.2.

    Raises:
        ConfigError: if it cannot be read, or a key is there twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path} cannot be read as YAML: {reason}") from error


def as_yaml(values: Any) -> str:
    """What ``read_yaml`` reads ``values`` from."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2's core schema; no key twice in a mapping."""

    yaml_implicit_resolvers: typing.ClassVar = {}

    def construct_mapping(self, node, deep=False):
        lines = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} was given in line {lines[key.value]} already",
                    problem_mark=key.start_mark,
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts text that would be read as a number in quotes."""


_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
"""Patterns of YAML 1.2's core schema by tag."""

for tag, pattern in _SCALARS.items():
    compiled = re.compile(f"^(?:{pattern})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", compiled, None)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", compiled, None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


def _find(path: str | Path, presets: Path) -> Path:
    candidates = (Path(path), presets / f"{path}.yaml")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(p.stem for p in presets.glob("*.yaml")))
    raise ConfigError(f"--config: no file {path}, and the presets are {names}")


def _overlay(config: Any, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, dict):
        what = prefix.rstrip(".") or "the file"
        raise ConfigError(f"{where}: {what} must hold keys and values")
    hints, changes = ranges.hints(type(config)), {}
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
            changes[key] = value
    try:
        return dataclasses.replace(config, **changes)
    except SettingError as error:
        raise ConfigError(f"{where}: {error.inside(prefix)}") from error


@functools.cache  # a file may be read more than once: that is said once
def _say_retired(where: str, name: str) -> None:
    log.info("%s: %s is not used any more: %s", where, name, RETIRED[name])


def _plain(value: Any) -> Any:
    """Tuples to lists, which YAML can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _fields(cls: type) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(cls)
