"""Fixtures for all tests."""

from tests.toy_project import project

pytest_plugins = ["pytester"]

__all__ = ["project"]
