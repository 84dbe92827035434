"""`python -m api.cli`: the command `placet` where the script is not on the path."""

from api.cli import main

main()
