"""`python -m api.cli`: the command line without its entry point being on the path."""

from api.cli import main

main()
