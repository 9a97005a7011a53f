"""Python functions of whole numbers, and of arrays of them, as machine code: in hundredths of a second, where the
compiler of Python functions (`ssmc.jit`) takes half a second to be loaded and seconds to compile.

What a function may consist of is little, and means what it means in Python, but that whole numbers have 64 bits and
that nothing checks an index: names and elements of arrays that are assigned, `if`, `while`, `for` over a range,
`break`, `continue`, `return`; sums, differences, products, floor quotients, `min`, `max`, comparisons, `in` a tuple,
`and`, `or`, `not`; calls of such functions. So it can be run as it stands, too, on lists, which is how it is tested.
Parameters annotated `int` are whole numbers, all others arrays; every function returns a whole number.
"""

from __future__ import annotations

import ast
import ctypes
import tokenize
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numpy.typing import NDArray

from ssmc.machine_code import target_machine

WHOLE, FLAG = ir.IntType(64), ir.IntType(1)
ARRAY = WHOLE.as_pointer()
ARITHMETIC = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}

Words = MutableSequence[int]
"""What an array is to a function that is run as it stands."""


@dataclass(frozen=True)
class Compiled:
    """The machine code of a function, with all that keeps it in memory."""

    call: Callable[..., int]
    arrays: tuple[bool, ...]  # by parameter
    kept: Any

    def __call__(self, *arguments: int | NDArray[np.int64]) -> int:
        """Raises ValueError for an array that is not one of 64-bit whole numbers that lie one behind the other."""
        pairs = zip(arguments, self.arrays, strict=True)
        return self.call(*[address(value) if array else value for value, array in pairs])


def address(array: Any) -> int:
    """Where the numbers of an array begin. Raises ValueError for what machine code would misread."""
    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or not array.flags.carray:
        raise ValueError("machine code takes arrays of 64-bit whole numbers that lie one behind the other")
    place: int = array.__array_interface__["data"][0]
    return place


def compiled(*functions: Callable[..., int]) -> Compiled:
    """Machine code of the last of some functions; each may call those before it.

    Other names in them are whole numbers of their module, on whose outermost level they stand. Raises ValueError, with
    the line, for what cannot be such a function.
    """
    module, known = ir.Module(), dict[str, Any]()
    for function in functions:
        named = {name: value for name, value in function.__globals__.items() if type(value) is int}
        known[function.__name__] = _Writer(module, function, named, known).write()
    machine = target_machine(effort=0)
    parsed = binding.parse_assembly(str(module))
    # variables into registers, and little else: all that is more takes longer than it saves
    passes, builder = binding.create_new_function_pass_manager(), _builder(machine)
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for made in parsed.functions:
        passes.run(made, builder)
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    last = known[functions[-1].__name__]
    arrays = tuple(kind == ARRAY for kind in last.function_type.args)
    kinds = [ctypes.c_void_p if array else ctypes.c_int64 for array in arrays]
    call = ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(engine.get_function_address(last.name))
    return Compiled(call, arrays, engine)


def _builder(machine: Any) -> Any:
    return binding.create_pass_builder(machine, binding.create_pipeline_tuning_options())


@cache
def _functions_of(path: str) -> Mapping[str, ast.FunctionDef]:
    """Functions of a file by their names; `inspect.getsource` looks for the end of each."""
    with tokenize.open(path) as file:
        return {node.name: node for node in ast.parse(file.read()).body if isinstance(node, ast.FunctionDef)}


@dataclass
class _Writer:
    """One function while it is translated; its variables are words of its stack until LLVM knows better."""

    module: ir.Module
    function: Callable[..., int]
    constants: Mapping[str, int]
    known: Mapping[str, Any]
    names: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    b: Any = None
    loops: list[tuple[Any, Any]] = field(default_factory=list)  # where `continue` and `break` go

    def write(self) -> Any:
        tree = _functions_of(self.function.__code__.co_filename)[self.function.__name__]
        given = tree.args.args
        kinds = [WHOLE if _is_int(argument.annotation) else ARRAY for argument in given]
        made = ir.Function(self.module, ir.FunctionType(WHOLE, kinds), tree.name)
        self.b = ir.IRBuilder(made.append_basic_block())
        for argument, kind, value in zip(given, kinds, made.args, strict=True):
            if kind == ARRAY:
                self.arrays[argument.arg] = value
        for name in dict.fromkeys([*_assigned(tree), *(a.arg for a in given if a.arg not in self.arrays)]):
            self.names[name] = self.b.alloca(WHOLE)
        for argument, value in zip(given, made.args, strict=True):
            if argument.arg in self.names:
                self.b.store(value, self.names[argument.arg])
        self._block(tree.body)
        if not self.b.block.is_terminated:
            self.b.ret(ir.Constant(WHOLE, 0))
        return made

    def _block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if self.b.block.is_terminated:
                return
            self._statement(statement)

    def _statement(self, s: ast.stmt) -> None:
        b = self.b
        match s:
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                for target, found in zip(targets, [self._value(value) for value in values], strict=True):
                    self._assign(target, found)
            case ast.Assign(targets=[target], value=value):
                self._assign(target, self._value(value))
            case ast.AugAssign(target=target, op=op, value=value):
                assert isinstance(target, ast.Name | ast.Subscript)
                own = ast.Name(target.id) if isinstance(target, ast.Name) else ast.Subscript(target.value, target.slice)
                self._assign(target, self._value(ast.BinOp(own, op, value)))
            case ast.If(test=test, body=body, orelse=other):
                yes, no, after = (b.append_basic_block() for _ in range(3))
                b.cbranch(self._flag(test), yes, no)
                for place, some in ((yes, body), (no, other)):
                    b.position_at_end(place)
                    self._block(some)
                    self._to(after)
                b.position_at_end(after)
            case ast.While(test=test, body=body, orelse=[]):
                self._loop(lambda: self._flag(test), body, lambda: None)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=ends), body=body):
                low, high = (self._value(end) for end in (ends if len(ends) == 2 else [ast.Constant(0), *ends]))
                index, at = self._hidden(), self.names[name]
                b.store(low, index)

                def within() -> Any:
                    return b.icmp_signed("<", b.load(index), high)

                def enter() -> None:
                    b.store(b.load(index), at)

                def step() -> None:
                    b.store(b.add(b.load(index), ir.Constant(WHOLE, 1)), index)

                self._loop(within, body, step, enter)
            case ast.Return(value=value):
                b.ret(ir.Constant(WHOLE, 0) if value is None else self._value(value))
            case ast.Break():
                b.branch(self.loops[-1][1])
            case ast.Continue():
                b.branch(self.loops[-1][0])
            case ast.Expr(value=ast.Constant(value=str())):
                pass  # its documentation
            case ast.Expr(value=ast.Call() as call):
                self._value(call)
            case _:
                raise self._refused(s)

    def _hidden(self) -> Any:
        """A variable without a name."""
        with self.b.goto_entry_block():
            return self.b.alloca(WHOLE)

    def _loop(
        self,
        test: Callable[[], Any],
        body: Sequence[ast.stmt],
        step: Callable[[], None],
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        b = self.b
        again, work, following, after = (b.append_basic_block() for _ in range(4))
        b.branch(again)
        b.position_at_end(again)
        b.cbranch(test(), work, after)
        b.position_at_end(work)
        enter()
        self.loops.append((following, after))
        self._block(body)
        self.loops.pop()
        self._to(following)
        b.position_at_end(following)
        step()
        b.branch(again)
        b.position_at_end(after)

    def _to(self, block: Any) -> None:
        if not self.b.block.is_terminated:
            self.b.branch(block)

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self.b.store(value, self.names[name])
            case ast.Subscript():
                self.b.store(value, self._place(target))
            case _:
                raise self._refused(target)

    def _place(self, e: ast.Subscript) -> Any:
        if not isinstance(e.value, ast.Name) or e.value.id not in self.arrays:
            raise self._refused(e)
        return self.b.gep(self.arrays[e.value.id], [self._value(e.slice)])

    def _value(self, e: ast.expr) -> Any:
        b = self.b
        match e:
            case ast.Constant(value=value) if type(value) is int:
                return ir.Constant(WHOLE, value)
            case ast.Name(id=name) if name in self.names:
                return b.load(self.names[name])
            case ast.Name(id=name) if name in self.constants:
                return ir.Constant(WHOLE, self.constants[name])
            case ast.Subscript():
                return b.load(self._place(e))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return b.neg(self._value(operand))
            case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
                return self._floor(self._value(left), self._value(right))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return getattr(b, ARITHMETIC[type(op)])(self._value(left), self._value(right))
            case ast.Call(func=ast.Name(id=("min" | "max") as name), args=[first, *others]):
                found = self._value(first)
                for other in map(self._value, others):
                    found = b.select(b.icmp_signed("<" if name == "min" else ">", other, found), other, found)
                return found
            case ast.IfExp(test=test, body=yes, orelse=no):
                return self._either(test, yes, no)
            case ast.Call(func=ast.Name(id=name), args=args) if name in self.known:
                return b.call(self.known[name], [self._argument(argument) for argument in args])
        raise self._refused(e)

    def _either(self, test: ast.expr, yes: ast.expr, no: ast.expr) -> Any:
        b = self.b
        places, after = [b.append_basic_block() for _ in range(2)], b.append_basic_block()
        b.cbranch(self._flag(test), *places)
        came = []
        for place, value in zip(places, (yes, no), strict=True):
            b.position_at_end(place)
            came.append((self._value(value), b.block))
            b.branch(after)
        b.position_at_end(after)
        found = b.phi(WHOLE)
        for value_and_block in came:
            found.add_incoming(*value_and_block)
        return found

    def _argument(self, e: ast.expr) -> Any:
        return self.arrays[e.id] if isinstance(e, ast.Name) and e.id in self.arrays else self._value(e)

    def _floor(self, a: Any, n: Any) -> Any:
        """The quotient, down to the next whole number."""
        b, zero = self.b, ir.Constant(WHOLE, 0)
        quotient, rest = b.sdiv(a, n), b.srem(a, n)
        apart = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, n), zero))
        return b.sub(quotient, b.zext(apart, WHOLE))

    def _flag(self, e: ast.expr) -> Any:
        """A condition; what comes after `and` and `or` is looked at only where it matters."""
        b = self.b
        match e:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                return b.icmp_signed(COMPARISONS[type(op)], self._value(left), self._value(right))
            case ast.Compare(left=left, ops=[ast.In()], comparators=[ast.Tuple(elts=[first, *others])]):
                value = self._value(left)
                found = b.icmp_signed("==", value, self._value(first))
                for other in others:
                    found = b.or_(found, b.icmp_signed("==", value, self._value(other)))
                return found
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return b.not_(self._flag(operand))
            case ast.BoolOp(op=op, values=[first, *others]):
                known = self._flag(first)
                for other in others:
                    came, more, after = b.block, b.append_basic_block(), b.append_basic_block()
                    b.cbranch(known, *((more, after) if isinstance(op, ast.And) else (after, more)))
                    b.position_at_end(more)
                    found = self._flag(other)
                    last = b.block
                    b.branch(after)
                    b.position_at_end(after)
                    both = b.phi(FLAG)
                    both.add_incoming(known, came)
                    both.add_incoming(found, last)
                    known = both
                return known
        return b.icmp_signed("!=", self._value(e), ir.Constant(WHOLE, 0))

    def _refused(self, what: ast.AST) -> ValueError:
        line = getattr(what, "lineno", 0)
        return ValueError(f"{self.function.__name__}, line {line}: machine code has no '{ast.unparse(what)}'")


def _is_int(annotation: ast.expr | None) -> bool:
    """Annotations are text where they are not looked at."""
    return isinstance(annotation, ast.Name) and annotation.id == "int"


def _assigned(tree: ast.AST) -> list[str]:
    """Names that a function gives a value."""
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
