"""What every model family must do, once: a subclass a family gives the names (TestRGAResNet)."""

from family_model_tests import ModelTests
from family_running_tests import RunningTests
from family_weights_tests import WeightsTests


class ModelFamilyTests(ModelTests, RunningTests, WeightsTests):
    """Subclass as ``Test<Family>``; override what :class:`FamilyBase` names."""
