"""Data sets by name, with options: ``market1501``, ``viper:split=3``."""

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .layout import Layout, plain_name
from .splits import Counts, ReidSplits

Factory = Callable[..., ReidSplits]

# Asked for often enough to be told why it is not there.
_WITHDRAWN = {
    "dukemtmcreid": "DukeMTMC-reID was withdrawn by its authors in 2019, because the people in it "
    "were filmed without being asked. It is not offered here, and should not be used",
}
_WITHDRAWN.update(dict.fromkeys(("duke", "dukemtmc"), _WITHDRAWN["dukemtmcreid"]))


# Options that say where something lies. They are of no use to others, and names are published.
_PATHS = ("images", "split_file")


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    Attributes:
        name: That it is registered under.
        title: As its authors call it.
        factory: From its folder and its options to its splits.
        layouts: In which it circulates; none for users' own data.
        published: The counts of its splits with the default options, as far as its authors give
            them.
        partitions: How many values ``split`` takes where the protocol is a mean over partitions.
    """

    name: str
    title: str
    factory: Factory
    layouts: tuple[Layout, ...] = ()
    published: Mapping[str, Counts] = field(default_factory=dict)
    partitions: int = 1

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Its options: the factory's keyword-only parameters, annotations resolved."""
        hints = typing.get_type_hints(self.factory)
        return {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(self.factory).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }


_datasets: dict[str, DatasetInfo] = {}


def register_dataset(
    name: str,
    *,
    title: str | None = None,
    layouts: Sequence[Layout] = (),
    published: Mapping[str, Counts] | None = None,
    partitions: int = 1,
) -> Callable[[Factory], Factory]:
    """Decorate a function from a root folder to a `ReidSplits`, to be found under ``name``.

    Args:
        name: Lower case, without colons.
        title: The name as the authors write it; ``name`` if there is none.
        layouts: In which it circulates.
        published: The counts of its splits with the default options. Where other options change
            them, the function gives `ReidSplits` its own, ``{}`` for unknown ones.
        partitions: The function's option ``split`` goes from 0 to this, exclusively.

    Returns:
        A decorator. The function's keyword-only parameters are the data set's options; they are
        annotated as bool, int, float, str, a Literal, or one of these or None.

    Raises:
        ValueError: The name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in _datasets:
            raise ValueError(f"a data set named {name!r} is registered already")
        _datasets[name] = DatasetInfo(
            name, title or name, factory, tuple(layouts), published or {}, partitions
        )
        return factory

    return register


def list_datasets() -> list[str]:
    """The names that `create_dataset` knows, sorted."""
    return sorted(_datasets)


def dataset_info(spec: str) -> DatasetInfo:
    """What is known of a data set, by its name or a spec.

    Raises:
        ValueError: There is no such data set.
    """
    name = spec.partition(":")[0]
    if name in _datasets:
        return _datasets[name]
    if reason := why_withdrawn(name):
        raise ValueError(f"no data set {name!r}: {reason}")
    close = difflib.get_close_matches(name.lower(), _datasets, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ValueError(
        f"unknown data set {name!r}: {hint}The known ones are {', '.join(list_datasets())}"
    )


def why_withdrawn(name: str) -> str | None:
    """Why a data set is not offered although others do, by its name; None where nothing is known.

    Case, spaces and punctuation of the name do not matter.
    """
    return _WITHDRAWN.get(plain_name(name))


def parse_spec(spec: str) -> tuple[DatasetInfo, dict[str, Any]]:
    """``NAME`` or ``NAME:OPTION=VALUE,OPTION=VALUE``, as a data set and options for it.

    Raises:
        ValueError: There is no such data set or option, or a value is not one of the option's.
    """
    info = dataset_info(spec)
    options = {}
    for item in filter(None, spec.partition(":")[2].split(",")):
        option, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"{spec}: {item!r} is not OPTION=VALUE. {_offer(info)}")
        if option not in info.options:
            raise ValueError(f"{spec}: {info.name} has no option {option!r}. {_offer(info)}")
        if option in options:
            raise ValueError(f"{spec}: {option} is given twice")
        try:
            options[option] = _parse(text, info.options[option].annotation)
        except ValueError as error:
            raise ValueError(f"{spec}: {option} is {error}, not {text!r}") from error
    return info, options


def partition_specs(spec: str) -> list[str]:
    """The specs of all partitions for a spec with ``split=all``; else the spec alone.

    Raises:
        ValueError: The data set has no partitions.
    """
    info = dataset_info(spec)
    options = spec.partition(":")[2].split(",")
    if "split=all" not in options:
        return [spec]
    if info.partitions == 1:
        raise ValueError(f"{spec}: {info.name} has no partitions to take all of")
    splits = (f"split={number}" for number in range(info.partitions))
    return [
        f"{info.name}:{','.join(split if option == 'split=all' else option for option in options)}"
        for split in splits
    ]


def create_dataset(spec: str, root: str | Path | None = None, **options: Any) -> ReidSplits:
    """Read a data set, and log what is unusual about it.

    Args:
        spec: One of `list_datasets`, alone or with options: ``viper:split=3``.
        root: Folder of the data set, or a folder above it; ``~`` is the home directory.
            Only data sets that make themselves (`pedestrians`) do without.
        options: The options as arguments; they win over those in ``spec``.

    Raises:
        ValueError: There is no such data set or option, or its files are not as they should be.
        FileNotFoundError: ``root`` does not hold the data set.
    """
    info, given = parse_spec(spec)
    given.update(options)
    if unknown := [option for option in given if option not in info.options]:
        raise ValueError(f"{info.name} has no option {unknown[0]!r}. {_offer(info)}")
    for option, value in given.items():
        choices = _choices(info.options[option].annotation)
        if choices and value not in choices:
            raise ValueError(
                f"{option} of {info.name} is one of {', '.join(map(str, choices))}, not {value!r}"
            )
    if "split" in given and info.partitions > 1 and not 0 <= given["split"] < info.partitions:
        raise ValueError(
            f"split {given['split']} is not one of the {info.partitions} partitions of "
            f"{info.title}, 0 to {info.partitions - 1}"
        )
    splits = info.factory(None if root is None else Path(root).expanduser(), **given)
    if splits.published is None:
        splits = replace(splits, published=info.published)
    unusual = [
        f"{option}={str(value).lower() if isinstance(value, bool) else value}"
        for option, value in sorted(given.items())
        if value != info.options[option].default and option not in _PATHS
    ]
    # A reader that finds out an option by itself has named it: msmt17:version=v2.
    name, _, named = splits.name.partition(":")
    if options_of_name := sorted({*unusual, *filter(None, named.split(","))}):
        splits = replace(splits, name=f"{name}:{','.join(options_of_name)}")
    splits.warn_of_surprises()
    return splits


def _parse(text: str, kind: Any) -> Any:
    """An option's value; a ValueError says what it should be."""
    arguments = typing.get_args(kind)
    if type(None) in arguments:
        if text.lower() == "none":
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
    if choices := _choices(kind):
        if text not in map(str, choices):
            raise ValueError(f"one of {', '.join(map(str, choices))}")
        return next(choice for choice in choices if str(choice) == text)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError({int: "a whole number", float: "a number"}[kind]) from None


def _choices(kind: Any) -> tuple[Any, ...]:
    """What an option of a Literal type, or of that or None, can be; nothing for other types."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    several = typing.get_args(kind)
    literals = [choice for one in several for choice in _choices(one)]
    return (*literals, None) if literals and type(None) in several else tuple(literals)


def _offer(info: DatasetInfo) -> str:
    options = [f"{name}={parameter.default}" for name, parameter in info.options.items()]
    return f"Its options are {', '.join(options)}" if options else "It has no options"
