"""Under which terms weights are passed on, which follows from what they were trained on."""

from collections.abc import Iterable

RESEARCH_ONLY = "research-use-only"

# What a card says of them; of others only the name.
TERMS = {
    RESEARCH_ONLY: "Research use only: the weights carry the terms of the data that they were "
    "trained on, which was published for research.",
    "apache-2.0": "Apache-2.0.",
}

# What the Hub knows by name; anything else is `license: other` with a name of its own.
HUB_LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0")

# Data sets that anybody may pass on. All other published ones are for research.
_FREE = {"pedestrians": "apache-2.0"}
# Of these the program knows nothing but the form.
_USERS_OWN = ("folder", "table", "hf")


def licence_of(data_sets: Iterable[str]) -> str:
    """The licence of weights trained on these data sets: research use only if any is for research.

    Args:
        data_sets: Their names, as in :func:`rga_timm.data.list_datasets`.

    Raises:
        ValueError: If one is the user's own or unknown, so that only the user knows its terms.
    """
    names = [name.partition(":")[0] for name in data_sets]
    if not names or (unknown := sorted({*names} & {*_USERS_OWN})):
        of = f"the data set {unknown[0]!r}" if names else "what these weights were trained on"
        raise ValueError(f"the terms of {of} are not known: name the weights' licence yourself")
    licences = {_FREE.get(name, RESEARCH_ONLY) for name in names}
    return RESEARCH_ONLY if RESEARCH_ONLY in licences else licences.pop()
