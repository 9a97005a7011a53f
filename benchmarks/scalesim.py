"""`python -m benchmarks.scalesim`: our cycles of matrix products beside those of the real SCALE-Sim.

SCALE-Sim runs in a virtual environment of its own (made in a temporary folder, or given by `--python`). It is given
ample memories, so that what it reports is compute cycles without stalls.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from backends.epochcore.clock.gemm import CYCLES

Shape = tuple[int, int, int, int, int]
PACKAGE = "scalesim==3.0.0"
# SCALE-Sim 3.0.0 turns arrays of one number into numbers as later numpy no longer does.
NUMPY = "numpy<2.3"
SHORT = {"weight_stationary": "ws", "output_stationary": "os"}
# M, K, N, rows, columns: smaller and larger than the array in every direction, divisible or not, single rows.
SHAPES: tuple[Shape, ...] = (
    (7, 5, 6, 4, 4),
    (16, 16, 16, 4, 4),
    (1, 16, 16, 8, 8),
    (33, 9, 17, 8, 4),
    (20, 40, 10, 16, 8),
    (100, 64, 96, 32, 32),
    (3, 100, 50, 16, 16),
    (64, 1, 64, 8, 16),
    (129, 65, 33, 32, 16),
    (256, 128, 256, 128, 128),
)

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: 4096
FilterSramSzkB: 4096
OfmapSramSzkB: 4096
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
Bandwidth: 10
ReadRequestBuffer: 512
WriteRequestBuffer: 512
MemoryBanks: 1
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def closed_forms(shape: Shape) -> dict[str, int]:
    """Our cycles by dataflow."""
    return {dataflow: cycles(*shape) for dataflow, cycles in CYCLES.items()}


def scale_sim(python: str, shape: Shape, dataflow: str, folder: Path) -> int:
    """Cycles that SCALE-Sim reports. Raises RuntimeError with what it said where it fails."""
    m, k, n, rows, cols = shape
    folder.mkdir(parents=True)
    config, topology = folder / "run.cfg", folder / "gemm.csv"
    config.write_text(CONFIG.format(rows=rows, cols=cols, dataflow=SHORT[dataflow]), encoding="utf-8")
    topology.write_text(f"Layer, M, N, K,\nproduct, {m}, {n}, {k},\n", encoding="utf-8")
    command = [python, "-m", "scalesim.scale", "-c", config, "-t", topology, "-l", topology, "-i", "gemm", "-p", folder]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    reports = list(folder.rglob("COMPUTE_REPORT.csv"))
    if done.returncode or not reports:
        raise RuntimeError(f"SCALE-Sim failed on {shape}, {dataflow}:\n{done.stdout}\n{done.stderr}")
    with reports[0].open(newline="", encoding="utf-8") as file:
        rows_of = list(csv.reader(file, skipinitialspace=True))
    at = next(i for i, name in enumerate(rows_of[0]) if name.strip() == "Total Cycles")
    return int(float(rows_of[1][at]))


def _environment(folder: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE, NUMPY], check=True)
    return python


def main() -> int:
    """Print the comparison; 0 where every number is equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", help=f"interpreter that has {PACKAGE} and {NUMPY}; one is made without")
    given = parser.parse_args()
    equal = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = given.python or _environment(folder / "environment")
        print(f"{'M x K x N':>18} {'array':>10} {'dataflow':>18} {'ours':>9} {PACKAGE:>16}")
        for number, shape in enumerate(SHAPES):
            for dataflow, ours in closed_forms(shape).items():
                theirs = scale_sim(python, shape, dataflow, folder / f"{number}-{dataflow}")
                m, k, n, rows, cols = shape
                product, array = f"{m} x {k} x {n}", f"{rows} x {cols}"
                mark = "" if ours == theirs else "  differs"
                print(f"{product:>18} {array:>10} {dataflow:>18} {ours:>9} {theirs:>16}{mark}")
                equal &= ours == theirs
    print("all equal" if equal else "not all equal")
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
