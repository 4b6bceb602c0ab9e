"""`Upstash-Retry-Delay`: arithmetic in one variable, and nothing else."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Final

MAX_LENGTH: Final = 500

_FUNCTIONS: Final[dict[str, Callable[..., float]]] = {
    "pow": math.pow,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": math.fabs,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "min": min,
    "max": max,
}
_OPERATORS: Final[dict[type[ast.AST], Callable[..., float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def evaluate(expression: str, retried: int) -> float:
    """Return what an expression comes to, in milliseconds.

    Args:
        expression: numbers, `+ - * / %`, brackets, the functions above and the variable `retried`.
        retried: 0 for the first retry.

    Raises:
        ValueError: it is no such expression, or comes to no number of milliseconds.
    """
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body, float(retried))
    except (SyntaxError, ArithmeticError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"comes to {value}")
    return value


def _value(node: ast.expr, retried: float) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id="retried"):
            return retried
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(operand, retried))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(left, retried), _value(right, retried))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return float(_FUNCTIONS[name](*(_value(argument, retried) for argument in arguments)))
    raise ValueError(f"{ast.unparse(node)!r} is not understood")
