"""Passes over the array, with what the last `preload` has put into it."""

PASSES = ("mac", "fri", "fri.x", "tri", "tri.x", "sel")
