"""The `ssmc` command."""
