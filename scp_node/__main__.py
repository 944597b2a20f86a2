"""`python -m scp_node` is `scp-node`."""

from scp_node.cli.commands import main

main()
