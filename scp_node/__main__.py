"""`python -m scp_node` is `scp-node`, and the program of each process that it starts."""

import sys

from scp_node.processes import is_process, run_process

if is_process(sys.argv[1:]):
    sys.exit(run_process(sys.argv[1:]))

from scp_node.cli.commands import main

main()
