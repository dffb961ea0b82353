"""mma.sync and ldmatrix: every fragment's place as the PTX ISA lists it, element by element."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from convgen.errors import KernelFault
from convgen.targets.cuda.interp import parse, run
from tests.targets.cuda.interp.snippets import kernel

Place = Callable[[int, int, int], tuple[int, int]]

# (row, column) of element i of a lane's fragment, with g = lane / 4 and t = lane % 4.
SHAPES: dict[tuple[str, str], tuple[int, int, int, Place, Place]] = {
    # a: rows, depth, elements of a and b per lane, place in a (row, k), place in b (k, column)
    ("m16n8k16", "bf16"): (
        16,
        16,
        8,
        lambda i, g, t: (g if i in (0, 1, 4, 5) else g + 8, 2 * t + (i & 1) + (8 if i >= 4 else 0)),
        lambda i, g, t: (2 * t + (i & 1) + (8 if i >= 2 else 0), g),
    ),
    ("m16n8k16", "f16"): (
        16,
        16,
        8,
        lambda i, g, t: (g if i in (0, 1, 4, 5) else g + 8, 2 * t + (i & 1) + (8 if i >= 4 else 0)),
        lambda i, g, t: (2 * t + (i & 1) + (8 if i >= 2 else 0), g),
    ),
    ("m16n8k8", "bf16"): (
        16,
        8,
        4,
        lambda i, g, t: (g if i < 2 else g + 8, 2 * t + (i & 1)),
        lambda i, g, t: (2 * t + i, g),
    ),
    ("m16n8k8", "f16"): (
        16,
        8,
        4,
        lambda i, g, t: (g if i < 2 else g + 8, 2 * t + (i & 1)),
        lambda i, g, t: (2 * t + i, g),
    ),
    ("m16n8k8", "tf32"): (
        16,
        8,
        4,
        lambda i, g, t: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
        lambda i, g, t: (t + 4 * i, g),
    ),
    ("m16n8k4", "tf32"): (16, 4, 2, lambda i, g, t: (g + 8 * i, t), lambda i, g, t: (t, g)),
    ("m8n8k4", "f64"): (8, 4, 1, lambda i, g, t: (g, t), lambda i, g, t: (t, g)),
}
NUMPY = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "tf32": np.float32, "f64": np.float64}


def fragments(matrix: np.ndarray, count: int, place: Place) -> np.ndarray:
    """[lane][element] of a matrix."""
    return np.array([[matrix[place(i, lane // 4, lane % 4)] for i in range(count)] for lane in range(32)], matrix.dtype)


def multiply(shape: str, kind: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, guard: str = "") -> np.ndarray:
    """Runs one mma on [lane][element] fragments."""
    word = 8 if kind == "f64" else 4
    letter, load, sums = ("%fd", "f64", "f64") if kind == "f64" else ("%r", "b32", "f32")
    counts = [array.shape[1] * array.dtype.itemsize // word for array in (a, b)]
    lines, first, names = [], 1, []
    for number, count in enumerate(counts, 2):
        lines.append(f"\tmad.wide.u32 %rd20, %t, {word * count}, %rd{number};")
        names.append([f"{letter}{first + i}" for i in range(count)])
        lines += [f"\tld.global.{load} {name}, [%rd20+{word * i}];" for i, name in enumerate(names[-1])]
        first += count
    held = "%fd" if kind == "f64" else "%f"
    c_names = [f"{held}{first + i if kind == 'f64' else 10 + i}" for i in range(c.shape[1])]
    lines.append(f"\tmad.wide.u32 %rd20, %t, {c.dtype.itemsize * c.shape[1]}, %rd4;")
    lines += [f"\tld.global.{sums} {name}, [%rd20+{c.dtype.itemsize * i}];" for i, name in enumerate(c_names)]
    groups = ", ".join(f"{{{', '.join(group)}}}" for group in (c_names, *names, c_names))
    lines.append(f"\t{guard} mma.sync.aligned.{shape}.row.col.{sums}.{kind}.{kind}.{sums} {groups};")
    lines.append(f"\tmad.wide.u32 %rd20, %t, {c.dtype.itemsize * c.shape[1]}, %rd1;")
    lines += [f"\tst.global.{sums} [%rd20+{c.dtype.itemsize * i}], {name};" for i, name in enumerate(c_names)]
    made = np.zeros_like(c)
    run(parse(kernel("\n".join(lines), 4)), grid=(1,), block=(32,), arguments=[made, a, b, c])
    return made


@pytest.mark.parametrize(("shape", "kind"), SHAPES)
def test_fragments(shape: str, kind: str) -> None:
    rows, depth, count, place_a, place_b = SHAPES[shape, kind]
    rng = np.random.default_rng(8)
    dtype, wide = NUMPY[kind], np.float64 if kind == "f64" else np.float32
    a, b = rng.integers(-8, 9, (rows, depth)).astype(dtype), rng.integers(-8, 9, (depth, 8)).astype(dtype)
    c = rng.integers(-99, 99, (rows, 8)).astype(wide)
    sums: Place = lambda i, g, t: (g if i < 2 else g + 8, 2 * t + (i & 1))  # noqa: E731
    size = rows // 4
    made = multiply(
        shape, kind, fragments(a, count, place_a), fragments(b, max(count // 2, 1), place_b), fragments(c, size, sums)
    )
    expected: np.ndarray = a.astype(np.float64) @ b.astype(np.float64) + c.astype(np.float64)
    assert (made == fragments(expected.astype(wide), size, sums)).all()


def test_tf32_ignores_the_lower_bits_of_its_operands() -> None:
    _, _, count, place_a, place_b = SHAPES["m16n8k8", "tf32"]
    a, b = np.full((16, 8), 1 + 2**-11, np.float32), np.full((8, 8), 1 + 2**-10, np.float32)
    made = multiply(
        "m16n8k8", "tf32", fragments(a, count, place_a), fragments(b, 2, place_b), np.zeros((32, 4), np.float32)
    )
    assert (made == np.float32(8 * (1 + 2**-10))).all()


def test_a_warp_that_is_not_whole_is_a_fault() -> None:
    count = 4
    a, b = np.ones((32, count), np.float32), np.ones((32, 2), np.float32)
    with pytest.raises(KernelFault, match="1 lanes of the warp do not take part") as caught:
        multiply("m16n8k8", "tf32", a, b, np.zeros((32, 4), np.float32), "setp.lt.u32 %p1, %t, 31;\n\t@%p1")
    assert caught.value.kind == "warp"


def load_matrices(count: int, trans: str, data: np.ndarray, address: str = "", threads: int = 32) -> np.ndarray:
    """Puts data [row][8 halves] into shared memory and loads matrices; returns [register][lane] words."""
    registers = [f"%r{10 + i}" for i in range(count)]
    body = f"""
	mov.u32 %r1, tile;
	shl.b32 %r2, %t, 4;
	add.u32 %r3, %r1, %r2;
	mul.wide.u32 %rd10, %t, 16;
	add.u64 %rd11, %rd2, %rd10;
	ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd11];
	st.shared.v4.u32 [%r3], {{%r4, %r5, %r6, %r7}};
	bar.sync 0;
	{address}
	ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{", ".join(registers)}}}, [%r3];
	mad.wide.u32 %rd12, %t, 4, %rd1;
""" + "\n".join(f"\tst.global.b32 [%rd12+{128 * i}], {name};" for i, name in enumerate(registers))
    made = np.zeros((count, 32), np.uint32)
    text = kernel(body, 2, more=".shared .align 16 .b8 tile[512];")
    run(parse(text), grid=(1,), block=(threads,), arguments=[made, data])
    return made


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
def test_ldmatrix(count: int, trans: str) -> None:
    data = np.arange(256, dtype=np.uint16).reshape(32, 8)
    # Only the first 8 * count lanes' addresses may count.
    spoil = f"setp.ge.u32 %p1, %t, {8 * count};\n\t@%p1 mov.u32 %r3, 3;" if count < 4 else ""
    made = load_matrices(count, trans, data, spoil)
    for number in range(count):
        matrix = data[8 * number : 8 * number + 8]
        matrix = matrix.T if trans else matrix
        for lane in range(32):
            row, column = lane // 4, 2 * (lane % 4)
            assert made[number, lane] == int(matrix[row, column]) | int(matrix[row, column + 1]) << 16


def test_a_row_that_is_not_aligned_is_a_fault() -> None:
    with pytest.raises(KernelFault) as caught:
        load_matrices(4, "", np.zeros((32, 8), np.uint16), "setp.eq.u32 %p1, %t, 5;\n\t@%p1 sub.u32 %r3, %r3, 8;")
    fault = caught.value
    assert (fault.kind, fault.thread) == ("misaligned", (5, 0, 0))
    assert fault.text.startswith("ldmatrix.sync")


def test_a_row_beyond_the_array_is_a_fault() -> None:
    with pytest.raises(KernelFault) as caught:
        load_matrices(4, "", np.zeros((32, 8), np.uint16), "add.u32 %r3, %r3, 16;")
    assert (caught.value.kind, caught.value.thread) == ("out of bounds", (31, 0, 0))
