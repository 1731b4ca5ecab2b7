"""Processes that stay: each runs functions of `tests.distributed` as one rank of a gloo group of any size, and is started once."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 120


class Workers:
    """A pool of processes.

    Args:
        count: the largest group.
        folder: for the files by which ranks meet.
        environment: what the processes' environment adds.
    """

    def __init__(self, count: int, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._folder, self._runs = folder, 0
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, environment or {}), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: str, ranks: int, **arguments: Any) -> list[Any]:
        """Call `module.function(**arguments)` of this package in so many ranks of a new group; the results by rank.

        Raises:
            AssertionError: with the traceback of the first rank that failed, or where one does not answer.
        """
        self._runs += 1
        meeting = self._folder / f"meeting-{self._runs}"
        for rank, pipe in enumerate(self._pipes[:ranks]):
            pipe.send((function, rank, ranks, str(meeting), arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes[:ranks]):
            assert pipe.poll(SECONDS), f"rank {rank} of {ranks} does not answer in {function}"
            answers.append(pipe.recv())
        failed = [f"rank {rank} of {ranks}:\n{text}" for rank, (done, text) in enumerate(answers) if not done]
        assert not failed, "\n".join(failed)
        return [result for _, result in answers]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
            process.join()


def _serve(pipe: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while True:
        function, rank, ranks, meeting, arguments = pipe.recv()
        module, _, name = function.rpartition(".")
        try:
            dist.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks, timeout=timedelta(seconds=SECONDS / 2)
            )
            try:
                result = getattr(importlib.import_module(f"tests.distributed.{module}"), name)(**arguments)
            finally:
                dist.destroy_process_group()
            pipe.send((True, result))
        except BaseException:  # noqa: BLE001  # it is the test's business, in the process that waits
            pipe.send((False, traceback.format_exc()))
