"""How fast processors are, as far as choosing between configurations needs to know: measured once for each kind of core."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Rates:
    """One core's speed; only ratios matter.

    ``clock`` is the clock in Hz that it keeps under wide vectors. Bytes a second, read plus written: ``cache`` within the
    second-level cache, ``last`` within the last one, ``memory`` beyond it; ``stream`` for weights of matrix products that
    come from beyond the second-level cache, beside their traffic, because few loads are in flight at a time (``short_rows``
    is how much more those in rows of a few vectors cost than in long ones); ``shared`` for the weights that a bilinear
    algorithm reads from there. ``line`` is cycles for one vector from the second-level cache; ``scattered`` the time to read
    vectors far apart from each other over that of whole rows; ``transform`` measured cycles of a transform over those that
    its instructions need: chains of few values, tests and addresses.
    """

    clock: float
    cache: float
    last: float
    memory: float
    stream: float
    short_rows: float
    shared: float
    line: float
    scattered: float
    transform: float


# By LLVM's name of the core.
_KNOWN = {
    # A server core of Zen 5 with 1 MiB of second-level cache, 32 MiB shared.
    "znver5": Rates(
        clock=4.1e9,
        cache=250e9,
        last=105e9,
        memory=65e9,
        stream=200e9,
        short_rows=0.1,
        shared=70e9,
        line=2.0,
        scattered=1.0,
        transform=1.0,
    ),
}
# A server core of Skylake with 1 MiB of second-level cache, whose shared cache lies behind a mesh.
_OTHERS = Rates(
    clock=2.3e9,
    cache=68e9,
    last=29.5e9,
    memory=29.5e9,
    stream=20e9,
    short_rows=0.55,
    shared=10e9,
    line=3.0,
    scattered=2.0,
    transform=4.0,
)


def rates_of(machine: Machine) -> Rates:
    """The rates of a machine's core, whatever the feature level it is lowered to."""
    return _KNOWN.get(machine.core, _OTHERS)
