"""Mutants of a module: every place where one small change of its syntax tree makes another program."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_OTHER_COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    change: str  # what was done, in words
    before: str  # the statement or expression as it was
    text: str  # the whole module


# Does the change and answers with what undoes it.
_Change = Callable[[], Callable[[], None]]


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """In the order of the source. Types and texts are left alone: no test could or should tell."""
    tree = ast.parse(source)
    for node, words, change in _changes(tree):
        before = ast.unparse(node).splitlines()[0]
        undo = change()
        text = ast.unparse(tree)
        undo()
        yield Mutant(file, getattr(node, "lineno", 0), words, before, text)


def _changes(tree: ast.Module) -> Iterator[tuple[ast.AST, str, _Change]]:
    for node in _judged_nodes(tree):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in _OTHER_COMPARISON:
                other = _OTHER_COMPARISON[type(operator)]()
                yield node, f"{type(operator).__name__} to {type(other).__name__}", _swap(node.ops, 0, other)
            case ast.BoolOp():
                other_op: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                yield node, f"{type(node.op).__name__} to {type(other_op).__name__}", _set(node, "op", other_op)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                sign: ast.operator = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
                yield node, f"{type(node.op).__name__} to {type(sign).__name__}", _set(node, "op", sign)
            case ast.UnaryOp(op=ast.Not()):
                yield node, "not dropped", _set(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
            case ast.Constant(value=bool() as truth):
                yield node, f"{truth} to {not truth}", _set(node, "value", not truth)
            case ast.Constant(value=int() as number):
                yield node, f"{number} to {number + 1}", _set(node, "value", number + 1)
            case ast.FunctionDef() | ast.If() | ast.For():
                for block in (node.body, getattr(node, "orelse", [])):
                    yield from _dropped(block)


def _judged_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Everything inside functions, and module constants that are numbers; no annotations, decorators or assertions."""
    for statement in tree.body:
        match statement:
            case ast.FunctionDef():
                yield from _inside(statement)
            case ast.ClassDef():
                for member in statement.body:
                    if isinstance(member, ast.FunctionDef):
                        yield from _inside(member)
            case ast.Assign(value=ast.Constant(value=int()) | ast.BinOp()):
                yield from ast.walk(statement.value)


def _inside(function: ast.FunctionDef) -> Iterator[ast.AST]:
    yield function
    for statement in function.body:
        yield from _walk(statement)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.AnnAssign) and child is node.annotation:
            continue
        yield from _walk(child)


def _dropped(block: list[ast.stmt]) -> Iterator[tuple[ast.AST, str, _Change]]:
    for place, statement in enumerate(block):
        match statement:
            case ast.Expr(value=ast.Call()) | ast.Continue() | ast.Return(value=None):
                yield statement, "dropped", _swap(block, place, ast.Pass())


def _swap(items: list[object] | list[ast.stmt] | list[ast.cmpop], place: int, new: object) -> _Change:
    def change() -> Callable[[], None]:
        old = items[place]
        items[place] = new  # type: ignore[call-overload]  # one of the same kind

        def undo() -> None:
            items[place] = old  # type: ignore[call-overload]

        return undo

    return change


def _set(node: ast.AST, name: str, new: object) -> _Change:
    def change() -> Callable[[], None]:
        old = getattr(node, name)
        setattr(node, name, new)
        return lambda: setattr(node, name, old)

    return change
