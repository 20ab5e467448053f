"""What the assembler and the disassembler say of kernels is read right."""

import pytest

from benchmarks.gpu import kernels
from benchmarks.gpu.kernels import Loop, Resources, loops_in, resident_blocks, resources_in
from benchmarks.gpu.layers import LAYERS
from matcaps.routing import cuda

SAID = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sweep' for 'sm_90'
ptxas info    : Function properties for sweep
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers
ptxas info    : Compiling entry function 'gather' for 'sm_90'
ptxas info    : Function properties for gather
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 26 registers, used 0 barriers, 512 bytes smem
"""


def test_registers_and_spills_are_read():
    assert resources_in(SAID) == {"sweep": Resources(255, 20, 0), "gather": Resources(26, 0, 512)}
    with pytest.raises(ValueError, match="not understood"):
        resources_in("Compiling entry function 'sweep' for 'sm_90', in other words than before")


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "architecture", "blocks"),
    [
        (256, 128, 81024, "sm_90", 2),  # as the GPU said of ConvCaps1 of paper
        (256, 255, 86144, "sm_90", 1),
        (256, 34, 0, "sm_90", 6),
        (256, 26, 0, "sm_90", 8),
        (256, 26, 0, "sm_120", 6),  # 48 warps
        (256, 128, 81024, "sm_80", 2),
        (256, 128, 81024, "sm_89", 1),
    ],
)
def test_occupancy(threads, registers, shared, architecture, blocks):
    assert resident_blocks(threads, registers, shared, architecture) == blocks


def machine_code(kernel, *lines):
    code = [
        line if line.startswith(".L") else f"        /*{16 * i:04x}*/                   {line} ;"
        for i, line in enumerate(lines)
    ]
    return "\n".join([f"\t.section\t.text.{kernel},\"ax\",@progbits", *code])  # fmt: skip


def test_inner_loops_are_counted():
    add = "FFMA R1, R2, R3, R1"
    text = machine_code(
        "sweep", "MOV R1, R2", ".L_x_1:", add, ".L_x_2:", *[add] * 64, "LDS R4, [R5]", "@P1 LDL R4, [R1]",
        "@!P0 BRA `(.L_x_2)", "@P2 BRA `(.L_x_1)", "@P3 BRA `(.L_x_3)", ".L_x_3:", "EXIT",
    ) + "\n" + machine_code("gather", ".L_x_4:", "LDG R1, [R2]", "BRA `(.L_x_4)")  # fmt: skip
    assert loops_in(text) == {"sweep": [Loop(67, 64, 1, 1)], "gather": []}


def test_a_layer_is_compiled_and_described():
    if cuda.MISSING is not None:
        pytest.skip(cuda.MISSING)
    rows = kernels.compile_layer(LAYERS["paper-small ClassCaps"], "sm_90", None)
    assert {row["kernel"] for row in rows} == {"route_windows", "route_windows_back", "sweep", "gather"}
    for row in rows:
        assert 0 < row["registers"] <= 255
        assert row["blocks"] >= 1
        assert row["code_bytes"] > 1000
        assert row["kernel"] in kernels.show(row)
