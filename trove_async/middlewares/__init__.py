"""Middlewares: transforms of bodies on their way to a backend."""
