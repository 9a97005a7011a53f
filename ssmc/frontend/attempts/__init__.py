"""Readings of a file: as a sequence model along given axes, or as one step; translated, simplified and proved."""
