"""Passes: graph to graph."""
