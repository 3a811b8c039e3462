"""Makes mutants of a module: its source with one small change each, by mutmut's operators.

Not by mutmut's own run. That keeps every mutant of a function beside it, behind a wrapper, which leaves out decorated
functions, `__new__` and code that runs at import; tests of object graphs, signatures and memory can see it, too.

Left out, for no test could find a change or the name is no behaviour: annotations, docstrings, `__all__`, type
variables, `Literal`, arguments of `isinstance` and `len`, and a text's other two spellings (mutmut makes three mutants
of each).
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

__all__ = ["Mutant", "change", "mutants_of"]

_SKIPPED_CALLS = frozenset({"TypeVar", "isinstance", "len"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module. `name` says which; it stays the same as long as the module's source does."""

    module: str
    name: str
    line: int
    _whole: cst.Module = field(repr=False, compare=False)
    _original: cst.CSTNode = field(repr=False, compare=False)
    _mutated: cst.CSTNode = field(repr=False, compare=False)

    def source(self) -> str | None:
        """The changed module; None if that is not Python, or the same program."""
        changed = self._whole.code_for_node(self._whole.deep_replace(self._original, self._mutated))
        try:
            differs = ast.dump(ast.parse(changed)) != ast.dump(ast.parse(self._whole.code))
        except SyntaxError:
            return None
        return changed if differs else None


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines. Cheap: a mutant's source is made when it is asked for."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor()
    wrapper.visit(visitor)
    version = hashlib.sha256(source.encode()).hexdigest()[:8]
    found = sorted(visitor.found, key=lambda item: item[0])
    return [
        Mutant(module, f"{module}@{version}:{line}#{number}", line, wrapper.module, original, mutated)
        for number, (line, original, mutated) in enumerate(found, 1)
    ]


class _Visitor(cst.CSTVisitor):
    """Collects (line, node, mutated node)."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_out(node):
            return False
        position = self.get_metadata(PositionProvider, node, None)
        if position is not None:
            for kind, operator in mutation_operators:
                if isinstance(node, kind):
                    mutated = list(operator(node))
                    if operator is operator_string:
                        mutated = mutated[:1]
                    self.found += [(position.start.line, node, changed) for changed in mutated]
        return True


def _is_left_out(node: cst.CSTNode) -> bool:
    match node:
        case cst.Annotation():
            return True
        case cst.Call(func=cst.Name(value=name)):
            return name in _SKIPPED_CALLS
        case cst.Subscript(value=cst.Name(value="Literal")):
            return True
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return True
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]):
            return True
    return False


def change(source: str, changed: str) -> str:
    """The lines that differ, those of the first with a minus, those of the other with a plus."""
    lines = list(difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0))[3:]
    return "\n".join(" ".join([line[0], line[1:].strip()]) for line in lines if line[0] in "+-")
