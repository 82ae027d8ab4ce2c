"""Snakemake as on a command line, which looks once a second whether a job has ended.

The plugin for SLURM waits ten seconds longer after every look at which none has.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def a_second(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


RemoteExecutor.sleep = a_second

if __name__ == "__main__":
    main(sys.argv[1:])
