"""Ranks: alone without an environment; together, one process stands for all through a group of one."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch.distributed as dist

from pix2seq_d.engine.ranks import Ranks, connected_ranks


def fail() -> Any:
    raise ValueError("x.png: broken")


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with connected_ranks() as ranks:
        assert ranks == Ranks(0, 1, 1)
        assert not dist.is_initialized()
        assert ranks.gather(lambda: 3, lambda result: result + 1) == (3, [4])
        with pytest.raises(ValueError, match=r"x\.png: broken"):
            ranks.gather(fail, lambda result: result)


@pytest.fixture
def group() -> Any:
    """A gloo group of this process alone."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_an_error_of_another_rank_is_raised_on_the_first_and_silent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_rank_failed(errors: list[Any], own: Any) -> None:
        errors[:] = [own, ValueError("y.png: broken")]

    monkeypatch.setattr(dist, "all_gather_object", other_rank_failed)
    with pytest.raises(ValueError, match=r"^y\.png: broken$"):
        Ranks(0, 2, 2).gather(lambda: 3, lambda result: result)
    with pytest.raises(SystemExit) as end:
        Ranks(1, 2, 2).gather(lambda: 3, lambda result: result)
    assert end.value.code == 1
