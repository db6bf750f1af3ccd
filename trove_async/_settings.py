"""Checks of settings, which the constructors of drivers and policies call."""

from __future__ import annotations

import math

from .errors import ConfigError


def check_texts(**settings: object) -> None:
    """Raise TypeError for a setting that is neither a str nor None."""
    for name, value in settings.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str, got {type(value).__name__}")


def check_switches(**settings: object) -> None:
    """Raise TypeError for a setting that is neither a bool nor None, such as the str ``"no"``."""
    for name, value in settings.items():
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


def check_counts(**settings: object) -> None:
    """Check settings that are counts.

    Raises:
        TypeError: A setting is not an int.
        ConfigError: A setting is less than 1.
    """
    check_ints(**settings)
    for name, value in settings.items():
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")


def check_ints(**settings: object) -> None:
    """Raise TypeError for a setting that is not an int."""
    for name, value in settings.items():
        # bool is a subclass of int, but attempts=True is a mistake.
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, got {type(value).__name__}")


def check_numbers(**settings: object) -> None:
    """Check settings that are numbers.

    Raises:
        TypeError: A setting is neither an int nor a float.
        ConfigError: A setting is NaN, which no comparison with a limit would reject, or an int that is too
            large for a float.
    """
    for name, value in settings.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number, got {type(value).__name__}")
        try:
            is_nan = math.isnan(value)
        except OverflowError as error:
            raise ConfigError(f"{name} is too large for a float") from error
        if is_nan:
            raise ConfigError(f"{name} must be a number, got nan")
