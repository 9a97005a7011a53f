"""ssmc: a compiler from trained state-space models to accelerator programs."""
