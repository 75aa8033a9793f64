"""Layers written, and read without daemon or registry."""
