"""Machine code for inner products of bytes, made at first use: NumPy has no such products, and floats take longer.

Processors of recent years multiply four pairs of bytes, one unsigned and one signed, and add the four products to a
32-bit sum in one instruction (Intel and AMD: VPDPBUSD; ARM: USDOT). `make_kernels` writes three functions around it in
the intermediate language of LLVM, and LLVM compiles them for this machine.

Numbers are packed for it: four bytes that follow each other in a product stand in one 32-bit word, and `width` rows of
words stand side by side in a panel (n_words, width).

To compile takes LLVM 60 ms and 40 MB, which stay with the process. The code is kept for the next one.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Sequence
from math import lcm
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from .kept_code import kept_code

__all__ = ["TARGETS", "Kernels", "Target", "assembly_of", "is_supported", "make_kernels"]

_BYTE, _WORD, _INT, _ADDRESS = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
_ONES, _FLIP = 0x01010101, 0x80808080  # in each byte of a word: 1, and the bit that tells x from x - 128
_ARGUMENTS = {"product": "aaiiiaii", "pack_rows": "aiiiaa", "pack_columns": "aiiiaaa"}  # addresses and integers


class Target(NamedTuple):
    """An instruction set.

    Attributes
    ----------
    machine, feature : str
        Beginning of the name of the architecture, and the feature that LLVM reports for a processor that has it.
    instruction : str
        LLVM's name of the instruction: sums, unsigned bytes, signed bytes -> sums.
    lanes : int
        Sums in a register.
    of_bytes : bool
        Whether its operands are declared as bytes, not as words of four.
    height, vectors : int
        Rows by registers of the block of sums that stays in registers; together they fill the registers there are.
    """

    machine: str
    feature: str
    instruction: str
    lanes: int
    of_bytes: bool
    height: int
    vectors: int

    @property
    def width(self) -> int:
        """Rows in a panel."""
        return self.lanes * self.vectors


#: The best one first.
TARGETS = (
    Target("x86", "avx512vnni", "llvm.x86.avx512.vpdpbusd.512", 16, False, 8, 3),
    Target("x86", "avxvnni", "llvm.x86.avx512.vpdpbusd.256", 8, False, 4, 3),
    Target("aarch64", "i8mm", "llvm.aarch64.neon.usdot.v4i32.v16i8", 4, True, 4, 4),
)


class Kernels:
    """Functions compiled for this machine."""

    def __init__(self, target: Target):
        self.target = target
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=2, jit=True
        )
        code = kept_code(
            lambda: machine.emit_object(_checked(_module(target))),
            __file__,
            (target.instruction, machine.triple, llvm.get_host_cpu_name(), features, *map(str, llvm.llvm_version_info)),
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        kinds = {"a": ctypes.c_void_p, "i": ctypes.c_int64}
        self._product, self._rows, self._columns = (
            ctypes.CFUNCTYPE(None, *[kinds[kind] for kind in arguments])(self._engine.get_function_address(name))
            for name, arguments in _ARGUMENTS.items()
        )

    @property
    def n_rows(self) -> int:
        """Vectors of bytes, between which products are formed, are multiples of this number."""
        return self.target.width

    @property
    def n_bytes(self) -> int:
        """Rows that are packed have a multiple of this many bytes; columns have a multiple of 4."""
        return 4 * self.target.lanes

    @property
    def n_terms(self) -> int:
        """Multiples of this number are both of the above."""
        return lcm(self.n_bytes, self.n_rows)

    def pack_rows(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pack the rows of contiguous uint8 (n, m), and add up each: panels (n / width, m / 4, width), sums (n,)."""
        n, m = values.shape
        packed, sums = np.empty((n // self.target.width, m // 4, self.target.width), np.uint32), np.zeros(n, np.int32)
        self._rows(values.ctypes.data, m, len(packed), m // 4, packed.ctypes.data, sums.ctypes.data)
        return packed, sums

    def pack_columns(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Do the same for the columns x of contiguous uint8 (m, n), and add up x (x - 128) of each, too: (n,)."""
        m, n = values.shape
        packed = np.empty((n // self.target.width, m // 4, self.target.width), np.uint32)
        sums, products = np.zeros((2, n), np.int32)
        pointers = (one.ctypes.data for one in (packed, sums, products))
        self._columns(values.ctypes.data, n, len(packed), m // 4, *pointers)
        return packed, sums, products

    @property
    def n_few(self) -> int:
        """Vectors of the first factor that are multiplied at a time: `out` has a multiple of them, not whole panels."""
        return self.target.height

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """Add the products a_i . (b_j - 128) to int32 (n_a, n_b), those with i >= j at least if `a` is `b`."""
        first = self.target.width // self.n_few if a is b else 0
        sizes = len(out) // self.n_few, len(b), a.shape[1]
        self._product(a.ctypes.data, b.ctypes.data, *sizes, out.ctypes.data, out.shape[1], first)


def make_kernels() -> Kernels | None:
    """Compile for this machine; None if it has no such instruction."""
    target = next(filter(is_supported, TARGETS), None)
    return None if target is None else Kernels(target)


def is_supported(target: Target) -> bool:
    """Tell whether this machine has an instruction set."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return machine.startswith(target.machine) and bool(llvm.get_host_cpu_features().get(target.feature))


def assembly_of(target: Target, triple: str) -> str:
    """Compile for another machine, of which LLVM knows the instructions, and return the assembly."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(features=f"+{target.feature}", opt=2)
    text: str = machine.emit_assembly(_checked(_module(target)))
    return text


def _checked(module: ir.Module) -> llvm.ModuleRef:
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    return parsed


def _module(target: Target) -> ir.Module:
    module = ir.Module("imgstack_ml")
    words = ir.VectorType(_WORD, target.lanes)
    operand = ir.VectorType(_BYTE, 4 * target.lanes) if target.of_bytes else words
    multiply = ir.Function(module, ir.FunctionType(words, [words, operand, operand]), target.instruction)
    for name, write in (("product", _write_product), ("pack_rows", _write_rows), ("pack_columns", _write_columns)):
        types = [_ADDRESS if kind == "a" else _INT for kind in _ARGUMENTS[name]]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), types), name)
        code = _Code(function, target, multiply)
        write(code, *function.args)
        code.ret_void()
    return module


class _Code(ir.IRBuilder):  # type: ignore[misc]
    """Writes a function, in terms of vectors of `lanes` words at places counted in bytes."""

    def __init__(self, function: ir.Function, target: Target, multiply: ir.Function):
        super().__init__(function.append_basic_block())
        self.target, self._multiply = target, multiply
        self.words = ir.VectorType(_WORD, target.lanes)
        self.zeros = ir.Constant(self.words, [0] * target.lanes)
        self.ones = ir.Constant(self.words, [_ONES] * target.lanes)
        self.flip = ir.Constant(self.words, [_FLIP] * target.lanes)

    def sum(self, *terms: Any) -> Any:
        """Add numbers, each a value or a constant or a pair to be multiplied."""
        total = _number(0)
        for term in terms:
            a, b = term if isinstance(term, tuple) else (term, 1)
            total = self.add(total, self.mul(_number(a), _number(b)))
        return total

    def read(self, base: Any, place: Any, kind: ir.Type | None = None) -> Any:
        return self.load(self.gep(base, [place], source_etype=_BYTE), align=1, typ=kind or self.words)

    def write(self, value: Any, base: Any, place: Any) -> None:
        self.store(value, self.gep(base, [place], source_etype=_BYTE), align=1)

    def increase(self, base: Any, place: Any, by: Any) -> None:
        self.write(self.add(self.read(base, place), by), base, place)

    def pick(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """Make a vector of lanes of two others; those of b are counted on from those of a."""
        return self.shuffle_vector(a, b, ir.Constant(ir.VectorType(_WORD, len(lanes)), list(lanes)))

    def spread(self, word: Any) -> Any:
        """Fill a vector with one word."""
        undefined = ir.Constant(self.words, ir.Undefined)
        first = self.insert_element(undefined, word, ir.Constant(_WORD, 0))
        return self.pick(first, undefined, [0] * self.target.lanes)

    def dot(self, sums: Any, unsigned: Any, signed: Any) -> Any:
        operand = self._multiply.function_type.args[1]
        return self.call(self._multiply, [sums, self.bitcast(unsigned, operand), self.bitcast(signed, operand)])

    def loop(self, count: Any, body: Callable[..., Sequence[Any] | None], *start: Any, step: int = 1) -> list[Any]:
        """Write ``for i in range(0, count, step): values = body(i, *values)``; return the last values."""
        before = self.block
        head, inside, after = (self.append_basic_block() for _ in range(3))
        self.branch(head)
        self.position_at_end(head)
        i, *values = phis = [self.phi(value.type) for value in (_number(0), *start)]
        for phi, value in zip(phis, (_number(0), *start), strict=True):
            phi.add_incoming(value, before)
        self.cbranch(self.icmp_unsigned("<", i, count), inside, after)
        self.position_at_end(inside)
        found = body(i, *values) or ()
        for phi, value in zip(phis, (self.sum(i, step), *found), strict=True):
            phi.add_incoming(value, self.block)
        self.branch(head)
        self.position_at_end(after)
        return values


def _number(value: Any) -> Any:
    return ir.Constant(_INT, value) if isinstance(value, int) else value


def _write_product(
    code: _Code, A: Any, B: Any, n_blocks: Any, n_panels: Any, n_words: Any, C: Any, stride: Any, first: Any
) -> None:
    height, vectors, lanes, width = code.target.height, code.target.vectors, code.target.lanes, code.target.width
    panel_words = code.mul(n_words, _number(width))

    def panel(q: Any) -> None:
        skipped = code.mul(q, first)
        code.loop(code.sub(n_blocks, skipped), lambda i: block(q, code.sum(i, skipped)))

    def block(q: Any, i: Any) -> None:
        in_panel = _number(width // height)  # blocks of A
        a = code.sum((code.mul(code.udiv(i, in_panel), panel_words), 4), (code.urem(i, in_panel), 4 * height))
        b = code.mul(code.mul(q, panel_words), _number(4))

        def word(k: Any, *sums: Any) -> list[Any]:
            signed = [
                code.xor(code.read(B, code.sum(b, (k, 4 * width), 4 * lanes * j)), code.flip) for j in range(vectors)
            ]
            unsigned = [code.spread(code.read(A, code.sum(a, (k, 4 * width), 4 * r), _WORD)) for r in range(height)]
            return [
                code.dot(sums[r * vectors + j], unsigned[r], signed[j]) for r in range(height) for j in range(vectors)
            ]

        sums = code.loop(n_words, word, *[code.zeros] * (height * vectors))
        for r in range(height):
            row = code.mul(code.sum((i, height), r), stride)
            for j in range(vectors):
                code.increase(C, code.sum((row, 4), (q, 4 * width), 4 * lanes * j), sums[r * vectors + j])

    code.loop(n_panels, panel)


def _write_rows(code: _Code, rows: Any, stride: Any, n_panels: Any, n_words: Any, P: Any, sums: Any) -> None:
    lanes, vectors, width = code.target.lanes, code.target.vectors, code.target.width

    def some_rows(g: Any) -> None:  # as many as lanes: a column of vectors of a panel
        source = code.mul(code.mul(g, _number(lanes)), stride)
        place = code.sum(
            (code.mul(code.udiv(g, _number(vectors)), n_words), 4 * width), (code.urem(g, _number(vectors)), 4 * lanes)
        )

        def square(k: Any, total: Any) -> list[Any]:
            words = [code.read(rows, code.sum(source, (stride, r), (k, 4))) for r in range(lanes)]
            for r, word in enumerate(_transposed(code, words)):
                code.write(word, P, code.sum(place, (k, 4 * width), 4 * width * r))
                total = code.dot(total, word, code.ones)
            return [total]

        (total,) = code.loop(n_words, square, code.zeros, step=lanes)
        code.increase(sums, code.mul(g, _number(4 * lanes)), total)

    code.loop(code.mul(n_panels, _number(vectors)), some_rows)


def _transposed(code: _Code, rows: list[Any]) -> list[Any]:
    """Transpose a square of words: swap the parts beside its diagonal, then those beside the diagonals of each half."""
    n = half = len(rows)
    while half := half // 2:
        upper = [i if not i & half else i - half + n for i in range(n)]
        lower = [i + half if not i & half else i + n for i in range(n)]
        for r in range(n):
            if not r & half:
                a, b = rows[r], rows[r + half]
                rows[r], rows[r + half] = code.pick(a, b, upper), code.pick(a, b, lower)
    return rows


def _write_columns(
    code: _Code, rows: Any, stride: Any, n_panels: Any, n_words: Any, P: Any, sums: Any, products: Any
) -> None:
    lanes, vectors, width = code.target.lanes, code.target.vectors, code.target.width
    of_bytes = ir.VectorType(_BYTE, lanes)
    in_pairs = [i // 2 + lanes * (i % 2) for i in range(2 * lanes)]  # a0 b0 a1 b1 ...
    in_fours = [2 * (i // 4) + i % 2 + 2 * lanes * (i // 2 % 2) for i in range(4 * lanes)]  # a0 b0 c0 d0 a1 ...

    def some_columns(g: Any) -> None:
        place = code.sum(
            (code.mul(code.udiv(g, _number(vectors)), n_words), 4 * width), (code.urem(g, _number(vectors)), 4 * lanes)
        )

        def word(k: Any, total: Any, product: Any) -> list[Any]:
            a, b, c, d = (
                code.read(rows, code.sum((code.sum((k, 4), r), stride), (g, lanes)), of_bytes) for r in range(4)
            )
            four = code.pick(code.pick(a, b, in_pairs), code.pick(c, d, in_pairs), in_fours)
            words = code.bitcast(four, code.words)
            code.write(words, P, code.sum(place, (k, 4 * width)))
            return [code.dot(total, words, code.ones), code.dot(product, words, code.xor(words, code.flip))]

        total, product = code.loop(n_words, word, code.zeros, code.zeros)
        code.increase(products, code.mul(g, _number(4 * lanes)), product)
        code.increase(sums, code.mul(g, _number(4 * lanes)), total)

    code.loop(code.mul(n_panels, _number(vectors)), some_columns)
