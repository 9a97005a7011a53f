"""Loops that an exporter unrolled become loops again."""
