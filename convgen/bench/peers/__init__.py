"""The libraries that convgen is compared with, a file each; a library is loaded when it is asked for."""

from __future__ import annotations

import importlib

from convgen.bench.contender import Peer
from convgen.errors import MissingDependencyError, OptionError

PEER_NAMES: tuple[str, ...] = ("torch", "onnxruntime", "openvino", "jax")


def check_peer_names(names: tuple[str, ...]) -> None:
    """Raises OptionError for a name that is no peer's or is given twice."""
    for name in names:
        if name not in PEER_NAMES:
            raise OptionError(f"against={name!r} is unknown; allowed: {', '.join(PEER_NAMES)}")
        if names.count(name) > 1:
            raise OptionError(f"against={','.join(names)!r} has {name!r} twice; allowed: every peer once")


def load_peer(name: str) -> Peer:
    """Imports the library and returns the peer; raises OptionError for an unknown name and MissingDependencyError."""
    check_peer_names((name,))
    try:
        module = importlib.import_module(f"convgen.bench.peers.{name}")
    except ImportError as error:
        raise MissingDependencyError(f"{name} cannot be imported: {error}") from error
    peer: Peer = module.PEER
    return peer
