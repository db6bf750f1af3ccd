"""Optional methods of drivers that are valid only for one class, and not for its subclasses and proxies."""

from __future__ import annotations


def defines(driver: object, method: str) -> bool:
    """Return whether the driver's own class defines the method.

    A subclass may store bodies in a different form, and so may a proxy that forwards all other attributes.
    A method that accesses the stored bytes in another way than `get` and `put` would bypass that.
    """
    return method in type(driver).__dict__
