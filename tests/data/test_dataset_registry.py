from pathlib import Path

import pytest

from rga_timm.data import create_dataset, list_datasets, register_dataset, registry


def test_the_data_sets_of_the_package_are_listed():
    assert {"market1501", "pedestrians"} <= set(list_datasets())
    assert list_datasets() == sorted(list_datasets())


def test_an_unknown_name_is_answered_with_close_ones_and_all():
    with pytest.raises(ValueError, match=r"'Market1502'.*mean 'market1501'.*pedestrians"):
        create_dataset("Market1502", "somewhere")
    with pytest.raises(ValueError, match=r"'imagenet': The known ones"):
        create_dataset("imagenet", "somewhere")


def test_a_registered_data_set_is_made_with_its_root(monkeypatch):
    monkeypatch.setattr(registry, "_factories", {})
    register_dataset("mine")(lambda root: root)
    assert list_datasets() == ["mine"]
    assert create_dataset("mine") is None
    assert create_dataset("mine", "a/b") == Path("a/b")
    assert create_dataset("mine", "~/b") == Path.home() / "b"


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'market1501' is registered already"):
        register_dataset("market1501")(lambda root: root)
