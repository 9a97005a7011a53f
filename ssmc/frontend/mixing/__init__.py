"""Regions that mix time without a loop: kernels, scans, products; found, probed and solved for."""
