"""Choose the licence of weights from the data that they were trained on."""

from collections.abc import Iterable

RESEARCH_ONLY = "research-use-only"

# The text on the card; for other licences, their name.
TERMS = {
    RESEARCH_ONLY: "Research use only: the weights carry the terms of the data that they were "
    "trained on, which was published for research.",
    "apache-2.0": "Apache-2.0.",
}

# Names that the Hub knows; any other licence is `license: other` there.
HUB_LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0")

# All other published data sets are for research.
_FREE = {"pedestrians": "apache-2.0"}
# Forms of the user's own data.
_USERS_OWN = {"folder", "table", "hf"}


def licence_of(data_sets: Iterable[str]) -> str:
    """The licence of weights trained on these data sets: research use only if any is for research.

    Raises:
        ValueError: If a data set is the user's own, so that only the user knows its terms.
    """
    names = [name.partition(":")[0] for name in data_sets]
    if not names or (unknown := sorted(_USERS_OWN.intersection(names))):
        of = f"the data set {unknown[0]!r}" if names else "what these weights were trained on"
        raise ValueError(f"the terms of {of} are not known: name the weights' licence yourself")
    licences = {_FREE.get(name, RESEARCH_ONLY) for name in names}
    return RESEARCH_ONLY if RESEARCH_ONLY in licences else licences.pop()
