"""What an ONNX file would run and read, known before onnxruntime sees it: standard operators without graphs, and no other file.

onnxruntime does not return from an operator that computes for ever (Loop), and no signal reaches Python meanwhile. Without Loop,
If and Scan each operator of the file runs once for each recording. A tensor may name a file that holds its numbers or, for older
versions of onnxruntime, an address in memory; exports hold their weights. The file is a protocol buffer: a sequence of fields,
each with its number and a value, which may be fields again. The package onnx, which reads them, is needed for exports only.
"""

from collections.abc import Iterator

from speaker_invariant_ser.errors import RunError, shown

GRAPH, FUNCTIONS = 7, 25  # fields of ModelProto
NODE, TENSOR, SPARSE = 1, 5, 15  # of GraphProto
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7  # of NodeProto
SUBGRAPHS = 6, 11  # of AttributeProto: a graph, and several
TENSORS, SPARSES = (5, 10), (22, 23)  # of AttributeProto: one, and several
EXTERNAL = 13  # of TensorProto: where else its numbers are
STANDARD = b"", b"ai.onnx"  # names of the domain of ONNX's own operators
VARINT, BYTES = 0, 2  # wire types: a number of variable length, and a length with as many bytes
MAX_VARINT = 10  # bytes
FIXED = {1: 8, 5: 4}  # wire types of numbers of fixed length, and their bytes


def require_plain_operators(content: memoryview, name: str) -> None:
    """Raise RunError unless every operator of a model is a standard one that contains no graph, and it holds its weights itself.

    Args:
        content: The file.
        name: What the error message calls it.
    """
    try:
        for number, part in fields(content):
            if number == FUNCTIONS:
                raise RunError(f"{name} was not written by `siser export`: it defines functions")
            for kind, value in fields(part) if number == GRAPH else ():
                if kind == NODE:
                    require_plain(list(fields(value)), name)
                elif kind in (TENSOR, SPARSE):
                    require_weights(value, kind == SPARSE, name)
    except IndexError:
        raise RunError(f"{name} cannot be read as an ONNX model: it is damaged") from None


def require_plain(node: list[tuple[int, memoryview]], name: str) -> None:
    """Raise RunError for an operator that is not a standard one, or contains a graph."""
    operator = shown(b"".join(bytes(value) for number, value in node if number == OPERATOR).decode(errors="replace"))
    if any(bytes(value) not in STANDARD for number, value in node if number == DOMAIN):
        raise RunError(f"{name} was not written by `siser export`: {operator} is no standard operator of ONNX")
    for number, value in (field for kind, attribute in node if kind == ATTRIBUTE for field in fields(attribute)):
        if number in SUBGRAPHS:
            raise RunError(f"{name} was not written by `siser export`: {operator} contains a graph, which may run for ever")
        if number in TENSORS + SPARSES:
            require_weights(value, number in SPARSES, name)


def require_weights(tensor: memoryview, sparse: bool, name: str) -> None:
    """Raise RunError for a tensor whose numbers are elsewhere, or a sparse one, which a few bytes let fill the memory."""
    if sparse or any(number == EXTERNAL for number, _ in fields(tensor)):
        kind = "sparse" if sparse else "outside the file"
        raise RunError(f"{name} was not written by `siser export`: it has weights that are {kind}")


def fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of each field that may hold fields; raise IndexError where the content is damaged."""
    position = 0
    while position < len(content):
        tag, position = read_number(content, position)
        number, kind = (tag & 0xFFFFFFFF) >> 3, tag & 7
        if kind == VARINT:
            _, position = read_number(content, position)
            continue
        size, position = read_number(content, position) if kind == BYTES else (FIXED.get(kind, len(content) + 1), position)
        if position + size > len(content):
            raise IndexError
        if kind == BYTES:
            yield number, content[position : position + size]
        position += size


def read_number(content: memoryview, position: int) -> tuple[int, int]:
    """Return a number of variable length, seven bits a byte, and the position behind it; raise IndexError at the end."""
    value = 0
    for index in range(MAX_VARINT):
        byte = content[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise IndexError
