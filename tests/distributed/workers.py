"""Processes that stay: each runs functions of `tests.distributed` as one rank of a gloo group of any size, until one of them fails."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from collections.abc import Mapping
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
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

    def __init__(self, count: int, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._count, self._folder, self._runs = count, folder, 0
        self._environment = dict(environment or {})
        self._start()

    def run(self, function: str, ranks: int, **arguments: Any) -> list[Any]:
        """Call `module.function(**arguments)` of this package in so many ranks of a new group; the results by rank.

        After a failure new processes take over: groups are named by a count that each process keeps, and one that failed to join
        a group counts differently from then on. No later run would find its ranks.

        Raises:
            AssertionError: with the traceback of each rank that failed, or where one does not answer or has ended.
        """
        self._runs += 1
        meeting = self._folder / f"meeting-{self._runs}"
        try:
            for rank, pipe in enumerate(self._pipes[:ranks]):
                pipe.send((function, rank, ranks, str(meeting), arguments))
            answers = [self._answer(rank, f"rank {rank} of {ranks}", function) for rank in range(ranks)]
            failed = [f"rank {rank} of {ranks}:\n{text}" for rank, (done, text) in enumerate(answers) if not done]
            assert not failed, "\n".join(failed)
        except (AssertionError, OSError):
            self.close()
            self._start()
            raise
        return [result for _, result in answers]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        for _ in range(self._count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, self._environment), daemon=True)
            process.start()
            there.close()  # the process has its own: here.recv() then tells when that one has ended
            self._pipes.append(here)
            self._processes.append(process)

    def _answer(self, rank: int, who: str, function: str) -> tuple[bool, Any]:
        assert self._pipes[rank].poll(SECONDS), f"{who} does not answer in {function}"
        try:
            answer: tuple[bool, Any] = self._pipes[rank].recv()
        except EOFError as error:
            msg = f"{who} ended in {function}"
            raise AssertionError(msg) from error
        return answer


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    # Without the barrier a rank may leave a group while another is still joining it, which then fails: "Connection closed by peer".
    os.environ.update({"TORCH_DIST_INIT_BARRIER": "1", **environment})
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
