"""Optional methods of drivers that are valid only for one class, and not for its subclasses and proxies."""

from __future__ import annotations


def defines(driver: object, method: str) -> bool:
    """Return whether the driver's own class defines the method.

    A subclass may store bodies in a different form, and so may a proxy that forwards all other attributes.
    A method that accesses the stored bytes in another way than `get` and `put` would bypass that.
    """
    return method in type(driver).__dict__


def has_with(driver: object, method: str, other: str) -> bool:
    """Return whether the class that defines `other` for the driver, or a subclass of it, defines the method.

    If a subclass overrides only `other`, or a proxy defines only that, the method would bypass it.
    """
    for definer in type(driver).__mro__:
        if method in definer.__dict__:
            return True
        if other in definer.__dict__:
            return False
    return False
