"""The call path: fitting arguments run, all others are refused with memory untouched; threads and forks."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from convgen.errors import DTypeError, OperandError, OptionError
from convgen.runtime import launch
from convgen.runtime.launch import ArrayGuard, Launcher, StageCall
from convgen.runtime.threads import parallel_entry
from tests.runtime.stage_code import scale

F64 = np.dtype(np.float64)
SHAPE = (4, 6)
GUARDS = (ArrayGuard(F64, SHAPE), ArrayGuard(F64, SHAPE, writable=True))


def make(threads: int = 1, factor: int = 3, mark: int = 0, tasks: int = 24) -> Launcher:
    return Launcher([StageCall(scale(), tasks, (factor, mark))], GUARDS, threads)


@pytest.fixture(params=["openmp", "python"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(launch, "parallel_entry", lambda: None)
    elif parallel_entry() is None:
        pytest.skip("no libgomp here")
    return str(request.param)


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(24.0).reshape(SHAPE)


def test_stages_run_in_order(x: np.ndarray) -> None:
    stages = [StageCall(scale(), 24, (2, 0)), StageCall(scale(), 12, (5, 0))]
    y = np.zeros(SHAPE)
    assert Launcher(stages, GUARDS)(x, y) is True
    np.testing.assert_array_equal(y.ravel(), np.where(np.arange(24) < 12, 5 * x.ravel(), 2 * x.ravel()))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_run_contiguous_chunks(backend: str, x: np.ndarray, threads: int) -> None:
    y = np.zeros(SHAPE)
    assert make(threads, mark=1000)(x, y) is True
    begins = np.array([24 * (i * threads // 24) // threads for i in range(24)]).reshape(SHAPE)
    np.testing.assert_array_equal(y, 3 * x + 1000 * begins)


@pytest.mark.parametrize("tasks", [0, 1])
def test_few_tasks_need_no_threads(backend: str, x: np.ndarray, tasks: int) -> None:
    y = np.zeros(SHAPE)
    assert make(4, tasks=tasks)(x, y) is True
    expected = np.where(np.arange(24) < tasks, 3 * x.ravel(), 0)
    np.testing.assert_array_equal(y.ravel(), expected)


class Sub(np.ndarray):
    pass


def misaligned(array: np.ndarray) -> np.ndarray:
    moved = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


UNFIT: dict[str, Callable[[np.ndarray], object]] = {
    "shape": lambda a: a.reshape(6, 4),
    "rank-lower": lambda a: a.reshape(24),
    "rank-higher": lambda a: a.reshape(4, 6, 1),
    "last-dimension": lambda a: np.zeros((4, 7)),
    "smaller-dtype": lambda a: a.astype(np.float32),
    "dtype-of-equal-size": lambda a: a.view(np.int64),
    "byte-order": lambda a: a.astype(">f8"),
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "negative-strides": lambda a: a[::-1, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], SHAPE),
    "misaligned": misaligned,
    "subclass": lambda a: a.view(Sub),
    "masked": np.ma.asarray,
    "list": lambda a: a.tolist(),
    "address": lambda a: a.ctypes.data,
    "none": lambda a: None,
}


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("kind", UNFIT)
def test_unfit_arguments_are_refused_untouched(kind: str, position: int) -> None:
    arguments: list[object] = [np.ones(SHAPE), np.full(SHAPE, 7.0)]
    array = arguments[position]
    assert isinstance(array, np.ndarray)
    arguments[position] = UNFIT[kind](array)
    call = make().call
    assert call(*arguments) is None
    assert (np.asarray(arguments[1]) != 3).all()


def test_only_the_result_must_be_writable(x: np.ndarray) -> None:
    y = np.zeros(SHAPE)
    assert make()(read_only(x), read_only(y)) is None
    assert not y.any()
    assert make()(read_only(x), y) is True


def test_the_number_of_arguments_counts(x: np.ndarray) -> None:
    y = np.zeros(SHAPE)
    call = make().call
    assert [call(), call(x), call(x, y, y)] == [None, None, None]
    assert not y.any()
    with pytest.raises(TypeError):
        call(x, y=y)


def test_python_threads_refuse_the_same(monkeypatch: pytest.MonkeyPatch, x: np.ndarray) -> None:
    monkeypatch.setattr(launch, "parallel_entry", lambda: None)
    y = np.zeros(SHAPE)
    assert make(2)(x[:, ::-1], y) is None
    assert not y.any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ml_dtypes.bfloat16, "int8", "int32"])
def test_every_dtype_has_one_descriptor(dtype: npt.DTypeLike) -> None:
    expected = np.dtype(dtype)
    launcher = Launcher([], [ArrayGuard(expected, (2,))])
    made = [np.zeros(2, dtype), np.ones(2).astype(dtype), np.empty(16, np.uint8)[: 2 * expected.itemsize].view(dtype)]
    assert [launcher(array) for array in made] == [True, True, True]
    assert launcher(np.zeros(2, np.complex64)) is None


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (1, 1, 1)])
def test_scalars_and_empty_arrays_fit(shape: tuple[int, ...]) -> None:
    assert Launcher([], [ArrayGuard(F64, shape)])(np.zeros(shape)) is True


def test_addresses_are_ints(x: np.ndarray) -> None:
    y = np.zeros(SHAPE)
    launcher = Launcher([StageCall(scale(), 24, (3, 0))], [GUARDS[0], None])
    for unfit in (y, float(y.ctypes.data), None, 2**63, -(2**63) - 1, np.int64(y.ctypes.data), True):
        assert launcher(x, unfit) is None
    assert not y.any()
    assert launcher(x, y.ctypes.data) is True
    np.testing.assert_array_equal(y, 3 * x)


def test_run_takes_addresses(backend: str, x: np.ndarray) -> None:
    y = np.zeros(SHAPE)
    launcher = make(2)
    launcher.run((x.ctypes.data, y.ctypes.data))
    np.testing.assert_array_equal(y, 3 * x)
    for unfit in ((), (x.ctypes.data,), (1, 2, 3), (x, y), (0, 2**64)):
        with pytest.raises(OperandError, match="addresses="):
            launcher.run(unfit)  # type: ignore[arg-type]


def test_bad_programs_are_typed_errors() -> None:
    with pytest.raises(OptionError, match="threads=0"):
        make(0)
    with pytest.raises(OptionError, match="stages="):
        make(tasks=-1)
    with pytest.raises(OptionError, match="stages="):
        Launcher([StageCall(0, 1)], ())
    with pytest.raises(DTypeError, match="dtype="):
        Launcher([], [ArrayGuard(np.dtype(">f8"), SHAPE)])


def test_no_references_leak(x: np.ndarray) -> None:
    y = np.zeros(SHAPE)
    call = make().call
    before = sys.getrefcount(x), sys.getrefcount(None), sys.getrefcount(True)
    for _ in range(10_000):
        call(x, y)
        call(x, x[0])
    after = sys.getrefcount(x), sys.getrefcount(None), sys.getrefcount(True)
    assert all(abs(a - b) < 1000 for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_many_python_threads_at_once(backend: str, threads: int) -> None:
    launcher = make(threads)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.full(SHAPE, float(seed))
        y = np.zeros(SHAPE)
        for _ in range(50):
            y[...] = 0
            if launcher(x, y) is not True or (y != 3 * seed).any():
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not wrong
    assert not any(worker.is_alive() for worker in workers)


def test_a_forked_child_runs_serially(backend: str, x: np.ndarray) -> None:
    launcher = make(2, mark=1000)
    y = np.zeros(SHAPE)
    assert launcher(x, y) is True
    assert (y != 3 * x).any(), "the second chunk starts past 0"
    child = os.fork()
    if child == 0:
        y[...] = 0
        fine = launcher(x, y) is True and bool((y == 3 * x).all())
        os._exit(0 if fine else 1)
    assert wait_for(child) == 0
    assert launcher(x, y) is True
    assert (y != 3 * x).any(), "the parent stays parallel"


def wait_for(child: int, seconds: float = 20.0) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the forked child hangs")


def test_the_gil_is_released() -> None:
    tasks = 1 << 22
    guard = ArrayGuard(F64, (tasks,), writable=True)
    launcher = Launcher([StageCall(scale(), tasks, (1, 0))] * 20, [guard, guard])
    x = np.zeros(tasks)
    ticks = 0
    worker = threading.Thread(target=launcher, args=(x, x))
    interval = sys.getswitchinterval()
    worker.start()
    while worker.is_alive():
        ticks += 1
        time.sleep(interval / 10)
    assert ticks > 3
