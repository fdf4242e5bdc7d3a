import pytest

from rga_timm.data import list_datasets
from rga_timm.hub.publish.licences import RESEARCH_ONLY, licence_of


def test_drawn_people_are_free_and_real_ones_for_research():
    assert licence_of(["pedestrians"]) == "apache-2.0"
    assert licence_of(["market1501"]) == RESEARCH_ONLY
    assert licence_of(["viper:split=3"]) == RESEARCH_ONLY


def test_the_strictest_licence_holds():
    assert licence_of(["pedestrians", "market1501"]) == RESEARCH_ONLY


@pytest.mark.parametrize("data_sets", [["folder"], ["market1501", "table"], ["hf:repo=x/y"], []])
def test_of_the_users_own_data_the_user_must_say(data_sets):
    with pytest.raises(ValueError, match="name the weights' licence yourself"):
        licence_of(data_sets)


def test_every_data_set_is_either_known_or_the_users_own():
    for name in list_datasets():
        if name not in ("folder", "table", "hf"):
            assert licence_of([name]) in ("apache-2.0", RESEARCH_ONLY)
