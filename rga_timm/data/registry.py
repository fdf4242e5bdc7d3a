"""The data sets that are known, by name."""

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .layout import Layout, plain_name
from .splits import Counts, ReidSplits

Factory = Callable[..., ReidSplits]

# By plain name: people ask for them, and should be told why they are not there.
_WITHDRAWN = dict.fromkeys(
    ("dukemtmcreid", "dukemtmc", "duke"),
    "DukeMTMC-reID was withdrawn by its authors in 2019, because the people in it were filmed "
    "without being asked. It is not offered here, and should not be used",
)


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

    The function's keyword-only parameters are the data set's options; they are annotated as bool,
    int, float, str, a Literal, or one of these or None.

    Args:
        name: Lower case, without colons.
        title: The name as the authors write it; ``name`` if there is none.
        layouts: In which it circulates.
        published: The counts of its splits with the default options. Where other options change
            them, the function gives `ReidSplits` its own, ``{}`` for unknown ones.
        partitions: The function's option ``split`` goes from 0 to this, exclusively.

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
    """Why a data set of this name, in any spelling, is not offered; None if nothing is known."""
    return _WITHDRAWN.get(plain_name(name))
