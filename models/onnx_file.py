"""What an ONNX file says without ONNX's own package: whether it names other files.

A tensor may lie in another file, by its path: a graph could read any file on the machine. Protobuf
allows one number to be written in several ways, so the file is walked field by field, as
https://protobuf.dev/programming-guides/encoding and onnx.proto describe it.
"""

__all__ = ["names_other_files"]

# By message, the fields that lead to a tensor, and the message that each holds.
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5


def names_other_files(graph: bytes) -> bool:
    """Whether any tensor of an ONNX file lies outside it. Raises ValueError for what is no ONNX."""
    view = memoryview(graph)
    todo = [("model", 0, len(view))]
    while todo:
        message, at, end = todo.pop()
        while at < end:
            tag, at = _varint(view, at, end)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, at = _varint(view, at, end)
                if message == "tensor" and number == DATA_LOCATION and value:
                    return True
                continue
            size = 8 if kind == EIGHT else 4
            if kind == BYTES:
                size, at = _varint(view, at, end)
            elif kind not in (EIGHT, FOUR):
                raise ValueError("the graph is no ONNX file")
            if at + size > end:
                raise ValueError("the graph is no ONNX file: it is cut off")
            if message == "tensor" and number == EXTERNAL_DATA:
                return True
            inner = FIELDS.get(message, {}).get(number)
            if kind == BYTES and inner:
                todo.append((inner, at, at + size))
            at += size
    return False


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next field begins."""
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("the graph is no ONNX file: a number does not end")
