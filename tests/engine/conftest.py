"""Fixtures of the tests of the engine."""

from saved_states import new_state, saved

__all__ = ["new_state", "saved"]
