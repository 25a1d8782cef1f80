"""Contract suites that authors of plug-ins subclass in their own tests (they need pytest)."""

import pytest

# So that a failing contract shows values, as in any other test.
pytest.register_assert_rewrite("mmdata.testing.converters")

from mmdata.testing.converters import ConverterContract, read_all, write_episode  # noqa: E402

__all__ = ["ConverterContract", "read_all", "write_episode"]
