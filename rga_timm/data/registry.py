"""The data sets that are known, by name."""

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .layout import Layout, plain_name
from .splits import Counts, ReidSplits

Factory = Callable[..., ReidSplits]

# By plain name: people ask for them, and should learn why they are not offered.
_WITHDRAWN = dict.fromkeys(
    ("dukemtmcreid", "dukemtmc", "duke"),
    "DukeMTMC-reID was withdrawn by its authors in 2019, because the people in it were filmed "
    "without being asked. It is not offered here, and should not be used",
)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is read."""

    name: str  # that it is registered under: lower case, without colons
    title: str  # as its authors write it
    factory: Factory  # reads it, from its folder and its options
    layouts: tuple[Layout, ...] = ()  # in which it circulates; none for users' own data
    # The counts of its splits with the default options, as far as its authors give them.
    published: Mapping[str, Counts] = field(default_factory=dict)
    partitions: int = 1  # how many values `split` takes, if the protocol is a mean over partitions

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
    """Register the decorated function, from a root folder to a `ReidSplits`, as a data set.

    The function's keyword-only parameters are the data set's options. Annotate them as bool, int,
    float, str, a Literal, or one of these or None. If options change the published counts, the
    function sets `ReidSplits.published`, to ``{}`` for unknown ones. The other arguments are those
    of `DatasetInfo`.

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
    """List the names that `create_dataset` knows, sorted."""
    return sorted(_datasets)


def dataset_info(spec: str) -> DatasetInfo:
    """Look up a data set by its name or a spec; a ValueError if there is none."""
    name = spec.partition(":")[0]
    if name in _datasets:
        return _datasets[name]
    if reason := why_withdrawn(name):
        raise ValueError(f"no data set {name!r}: {reason}")
    close = difflib.get_close_matches(name.lower(), _datasets, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    known = ", ".join(list_datasets())
    raise ValueError(f"unknown data set {name!r}: {hint}The known ones are {known}")


def why_withdrawn(name: str) -> str | None:
    """Say why a data set of this name, in any spelling, is not offered; None for other names."""
    return _WITHDRAWN.get(plain_name(name))
