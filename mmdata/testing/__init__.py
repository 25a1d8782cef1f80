"""Contract suites that authors of plug-ins subclass in their own tests (they need pytest)."""

from mmdata.testing.converters import ConverterContract, read_all, write_episode

__all__ = ["ConverterContract", "read_all", "write_episode"]
