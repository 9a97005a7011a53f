"""The `ssmc` command: thin, over `ssmc.driver`. Every subcommand is imported when it is asked for."""
