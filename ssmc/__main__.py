"""`python -m ssmc`: the command, where its script is not on the path."""

from ssmc.cli import command

command()
