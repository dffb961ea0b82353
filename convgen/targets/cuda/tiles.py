"""The matrix units of a warp, of which each thread holds a part of every tile, as the PTX ISA says under "Matrix fragments"; and
copies to shared memory that arrive later."""

from __future__ import annotations

from convgen.dtypes import DTYPES
from convgen.errors import IRError
from convgen.ir.build import add, floordiv, mod, mul
from convgen.ir.nodes import CopyAsync, Index, Int, TileDot, TileLoad, TileStmt, TileStore, TileZero
from convgen.targets.cuda.operations import Operation
from convgen.targets.cuda.places import Places

# The number of a thread in its warp.
LANE = "lane"


class Tiles(Places):
    """Statements on tiles, as lines."""

    def tile(self, statement: TileStmt) -> None:
        self.bases = {}
        match statement:
            case TileZero(tile, index):
                zeros = self.use(Operation("splat", "float32", 4))
                self.line(f"{self.tile_name(tile, index)} = {zeros}(np.float32(0.0))")
            case TileLoad(tile, index, memory, place, _, 1, turned):
                self.line(f"{self.tile_name(tile, index)} = {self.tile_load(tile, memory, place, turned=turned)}")
            case TileDot(c, c_index, a, a_index, b, b_index, True):
                storage = self.registers[a].dtype
                names = [self.tile_name(*each) for each in ((a, a_index), (b, b_index), (c, c_index))]
                self.line(f"{names[2]} = {self.use(Operation('mma', 'float32', 1, storage))}({', '.join(names)})")
            case TileStore(memory, place, 0, tile, index):
                row, col = add(place[0], floordiv(LANE, 4)), add(place[1], mul(mod(LANE, 4), 2))
                store = self.use(Operation("shared_store", "float32", 2, "float32"))
                for part in range(2):
                    half = self.use(Operation(f"half{part}", "float32", 2))
                    at = self.place(memory, (add(row, 8 * part), col))
                    self.line(f"{store}({memory}, {at}, {half}({self.tile_name(tile, index)}))")
            case _:
                raise IRError(f"stage {self.stage.name}: {statement} is no operation of a warp")

    def copy(self, copy: CopyAsync) -> None:
        """One operation, which is told whether to read or to write zeros."""
        self.bases = {}
        storage = self.program.buffer(copy.source).dtype
        size = copy.lanes * DTYPES[storage].itemsize
        inside = " and ".join(dict.fromkeys(map(self.condition, copy.conditions))) or "True"
        places = f"{copy.target}, {self.place(copy.target, copy.target_index)}"
        origin = f"{copy.source}, {self.place(copy.source, copy.source_index)}"
        operation = Operation("copy_async", "", size, storage)
        self.line(f"{self.use(operation)}({places}, {origin}, {inside})")

    def tile_name(self, tile: str, index: tuple[Index, ...]) -> str:
        """The variable that holds a thread's part of a tile."""
        numbers = [i.value for i in index if isinstance(i, Int)]
        shape = self.registers[tile].shape[-2 - len(numbers) : -2]
        return tile + "_".join(str(i) for i, extent in zip(numbers, shape, strict=True) if extent != Int(1))

    def tile_load(self, tile: str, memory: str, place: tuple[Index, ...], *, turned: bool) -> str:
        """A thread's part of a factor: of 16-bit elements it says where one row of the 8 x 8 matrices begins."""
        rows, columns = (extent.value for extent in self.registers[tile].shape[-2:] if isinstance(extent, Int))
        dtype = self.registers[tile].dtype
        if dtype == "float32":
            parts = [(r, c) for c in range(0, columns, 4) for r in range(0, rows, 8)]
            load = self.use(Operation("shared_load", "float32", 1, "float32"))
            found = []
            for r, c in parts:
                own = add(floordiv(LANE, 4), r), add(mod(LANE, 4), c)
                at = (*place[:-2], add(place[-2], own[turned]), add(place[-1], own[not turned]))
                found.append(f"{load}({memory}, {self.place(memory, at)})")
            return f"{self.use(Operation('tf32', 'float32', len(parts), 'float32'))}({', '.join(found)})"
        matrices = rows // 8 * (columns // 8)
        if turned:
            below = mul(floordiv(LANE, rows) if rows > 8 else mod(floordiv(LANE, 8), 2), 8)
            beside = mul(mod(floordiv(LANE, 8), 2), 8) if rows > 8 else Int(0)
            at = (*place[:-2], add(place[-2], below, mod(LANE, 8)), add(place[-1], beside))
        else:
            beside = mul(floordiv(LANE, rows) if rows > 8 else mod(floordiv(LANE, 8), 2), 8)
            at = (*place[:-2], add(place[-2], mod(LANE, rows)), add(place[-1], beside))
        operation = Operation("matrix_load_turned" if turned else "matrix_load", "int32", matrices, dtype)
        return f"{self.use(operation)}({memory}, {self.place(memory, at)})"
