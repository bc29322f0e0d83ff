"""The operators of every network's file, so that a change in a converted graph is seen.

`python tests/zoo/op_lists.py` writes `op_lists.json` again; look at what changed in it.
"""

import json
import pathlib

FILE = pathlib.Path(__file__).with_name("op_lists.json")


def op_list(flatbuffer: bytes) -> str:
    """The operators in their order, `3 x ADD` where one follows itself."""
    from larq_ext.deploy._flatbuffer import read_graph

    runs: list[list] = []
    for op in read_graph(flatbuffer).ops:
        if runs and runs[-1][1] == op.name:
            runs[-1][0] += 1
        else:
            runs.append([1, op.name])
    return " ".join(name if count == 1 else f"{count} x {name}" for count, name in runs)


def stored() -> dict[str, str]:
    """The list of each case; cases with equal lists stand together in the file."""
    groups = json.loads(FILE.read_text())
    return {case: group["operators"] for group in groups for case in group["cases"]}


def write(lists: dict[str, str]) -> None:
    groups: dict[str, list[str]] = {}
    for case, operators in lists.items():
        groups.setdefault(operators, []).append(case)
    content = [{"cases": cases, "operators": ops} for ops, cases in groups.items()]
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(FILE.parent))
    import test_exam

    lists = {}
    for case in test_exam.CASES:
        lists[test_exam.case_name(*case)] = test_exam.operators(*case)
        print(test_exam.case_name(*case), flush=True)
    write(lists)
