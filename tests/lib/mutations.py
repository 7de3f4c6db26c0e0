"""Mutations: small changes to a statement, as text in its place."""

import ast
import copy

PAIRS = "Add Sub, Mult Div, FloorDiv Mult, Mod FloorDiv, Pow Mult, BitAnd BitOr, And Or, Lt LtE, Gt GtE, Eq NotEq"
PAIRS = [[getattr(ast, name) for name in pair.split()] for pair in f"{PAIRS}, Is IsNot, In NotIn".split(", ")]
SWAPS = {**{b: a for a, b in reversed(PAIRS)}, **dict(PAIRS)}
COMPOUND = ast.If | ast.While | ast.For | ast.With
SYMMETRIC = {"max", "min", "maximum", "minimum", "isinstance", "issubclass", "partial", "cast"}


def statements(node, name="", inside=False):
    """Yield (qualified name of the function, statement) of all statements in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from statements(child, f"{name}.{child.name}".strip("."), isinstance(child, ast.FunctionDef))
        elif not isinstance(child, ast.expr):
            if inside and isinstance(child, ast.stmt) and not isinstance(child, ast.Try | ast.Match):
                yield name, child
            yield from statements(child, name, inside)


def all_statements(package):
    """Return (module, file, function, statement) of all statements in functions of the package in a folder."""
    files = {path: path.relative_to(package.parent) for path in sorted(package.rglob("*.py"))}
    modules = {file: ".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files.values()}
    return [(modules[f], f, *own) for path, f in files.items() for own in statements(ast.parse(path.read_text()))]


def header(statement):
    """Copy a statement; of a compound one, only what stands before its body."""
    node = copy.deepcopy(statement)
    if isinstance(node, COMPOUND):
        node.body, node.orelse = [], []
    return node


def expressions(node, path=()):
    """Yield (path, node) of what can be changed: no text, annotation, log, warning or error."""
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    if isinstance(node, ast.JoinedStr | ast.Raise) or "warn" in called or "logger" in called:
        return
    yield path, node
    for name, value in ast.iter_fields(node):
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and name != "annotation":
                yield from expressions(child, (*path, (name, i)))


def changes(statement):
    """Yield (kind, path) of each mutant of a statement."""
    for path, node in expressions(header(statement)):
        if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
            yield "operator", path
        elif isinstance(node, ast.Compare):
            yield "comparison", path
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            yield "condition", path
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield "constant", path
        elif isinstance(node, ast.Call) and len(node.args) > 1 and not isinstance(node.args[1], ast.Starred):
            name = ast.unparse(node.func).rpartition(".")[2]
            yield from [] if name in SYMMETRIC else [("arguments", path)]
    value, target = getattr(statement, "value", None), getattr(statement, "targets", [None])[0]
    call = isinstance(statement, ast.Expr) and isinstance(value, ast.Call) and any(expressions(value))
    stored = isinstance(statement, ast.Assign) and isinstance(target, ast.Attribute | ast.Subscript)
    guard = isinstance(statement, ast.If) and not statement.orelse
    guard = guard and isinstance(statement.body[-1], ast.Return | ast.Raise)
    if call or stored or guard or isinstance(statement, ast.AugAssign | ast.Continue | ast.Break | ast.Delete):
        yield "dropped", ()


def mutated(statement, kind, path):
    """Return the text of a statement before and after a change; of a compound one, of what stands before its body."""
    if kind == "dropped":
        return ast.unparse(statement), "pass"
    root = node = header(statement)
    for name, i in path:
        node = getattr(node, name) if i is None else getattr(node, name)[i]
    if kind == "arguments":
        node.args[:2] = node.args[1::-1]
    elif kind == "condition":
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif kind == "comparison":
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif kind == "operator":
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node.value, bool):
        node.value = not node.value
    else:
        node.value = node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0
    return ast.unparse(header(statement)), ast.unparse(root)


def spliced(source, statement, kind, after):
    """Return the source with a statement, or what stands before its body, replaced by text."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    first, last, tail = (statement.lineno, statement.col_offset), (statement.end_lineno, statement.end_col_offset), ""
    if isinstance(statement, COMPOUND) and kind != "dropped":
        body = statement.body[0]
        last, tail = (min([body.lineno, *(d.lineno for d in getattr(body, "decorator_list", []))]), 0), "\n"
    start, end = (sum(map(len, lines[: line - 1])) + column for line, column in (first, last))
    data = b"".join(lines)
    tail, after = tail.encode(), ("el" * (kind != "dropped") * data[start:].startswith(b"elif") + after).encode()
    return (data[:start] + after + tail + data[end:]).decode()
