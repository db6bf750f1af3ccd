"""Layers: drivers made of drivers."""
