"""The `ssmc` command: thin, over `ssmc.driver`. Every subcommand is imported when it is asked for."""


def command() -> None:
    """Run the command line and exit; an interrupt while it is being imported ends it as later ones do."""
    try:
        from ssmc.cli.main import main as run
    except KeyboardInterrupt:
        import os

        os.write(2, b"stopped\n")
        os._exit(130)  # as the shell says of a process that SIGINT ended
    run()
