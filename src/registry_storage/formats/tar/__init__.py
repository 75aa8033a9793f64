"""Tars as layers hold them: headers and contents, in order."""
