"""What the GPU benchmark counts with: the roofline, steady steps, kernels by name, its time, its order, its goals."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.gpu.budget import Budget, Pace
from tests.bench.gpu.kernels import Kind, Span, busy_us, kind_of, split
from tests.bench.gpu.part import run_part
from tests.bench.gpu.roofline import Ceilings, Roofline
from tests.bench.gpu.rows import Cell, Results, Row, cells_by_importance
from tests.bench.gpu.shapes import SHAPES
from tests.bench.gpu.streams import EngineFailed, Steady, generating
from tests.bench.gpu.tables import GOALS, notes, tables
from tests.bench.report import Machine
from tests.fakes import FakeEngine

KERNELS = Path(__file__).parents[2] / "handlers" / "engine" / "gpu" / "kernels"
H200 = Ceilings(copy_gb_per_s=4800, matrix_tflops=800)


def test_the_roofline_of_an_8b_is_the_one_on_paper() -> None:
    """16.06 GB of weights without the embeddings, of which a step reads a few rows; 128 KiB of keys and values a token."""
    roofline = Roofline(SHAPES["8b"], H200)
    assert roofline.weight_bytes == pytest.approx(15.0e9, rel=0.01)
    assert roofline.kv_token_bytes == 128 << 10
    assert 1 / roofline.decode_s(1, 0) == pytest.approx(4800 / 15.0, rel=0.01)
    assert 256 / roofline.decode_s(256, 1024) == pytest.approx(256 * 4800 / (15.0 + 34.4), rel=0.01)


def test_prompts_are_bound_by_operations_and_short_ones_by_weights() -> None:
    roofline = Roofline(SHAPES["8b"], H200)
    layers = SHAPES["8b"].num_parameters - 128256 * 4096
    assert roofline.prefill_s(1, 4096) == pytest.approx((2 * layers * 4096 + 2 * 32 * 4096 * 4096**2) / 800e12, rel=0.01)
    assert roofline.prefill_s(1, 8) == pytest.approx(15.0 / 4800, rel=0.01)
    assert roofline.prefill_operations(8, 100) == 8 * roofline.prefill_operations(1, 100)


def test_only_steps_with_all_sequences_count() -> None:
    early = [float(second) for second in range(20)]
    late = [float(second) for second in range(10, 40)]
    steady = Steady.of(100, [early, late])
    # The late one has settled at its fifth token, at 14 s; the early one ends at 19 s.
    assert (steady.num_tokens, steady.seconds, steady.tokens_per_s) == (10, 5.0, 2.0)
    assert steady.context == 100 + (sum(range(15, 20)) + sum(range(5, 10))) / 10


@pytest.mark.parametrize("late", [[], [30.0], [float(second) for second in range(25, 40)]])
def test_without_such_steps_there_is_no_figure(late: list[float]) -> None:
    with pytest.raises(ValueError, match="no step with all sequences"):
        Steady.of(100, [[float(second) for second in range(20)], late])


def test_an_engine_that_fails_is_no_measurement() -> None:
    """What is live then is cancelled, and its end waited for: the engine is good for the next cell."""

    class Failing(FakeEngine):
        def cancel(self, sequence_id: str) -> None:
            super().cancel(sequence_id)
            self.say(sequence_id, finish_reason="cancelled")

    engine = Failing()
    engine.say("0", "ab")
    engine.say("1", finish_reason="error", error="out of memory")
    with pytest.raises(EngineFailed, match="out of memory"), generating(engine, [[1], [2]], 5) as streams:
        streams.until_end(2)
    assert (engine.cancelled, engine.events) == (["0"], [])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_128x64_64x8_2x1_v_bz_TNT", Kind.LINEARS),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x128x64_warpgroupsize1x1x1", Kind.LINEARS),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_tn_align8>", Kind.LINEARS),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>", Kind.LINEARS),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16>", Kind.LINEARS),
        ("aten::addmm", Kind.LINEARS),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4, cutlass::bfloat16_t>>", Kind.ATTENTION),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", Kind.ATTENTION),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", Kind.ATTENTION),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>", Kind.SAMPLING),
        ("void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float>", Kind.SAMPLING),
        ("void at_cuda_detail::cub::DeviceRadixSortOnesweepKernel<...>", Kind.SAMPLING),
        ("void at::native::mbtopk::radixFindKthValues<float>", Kind.SAMPLING),
        ("void at::native::tensor_kernel_scan_innermost_dim<float, std::plus<float>>", Kind.SAMPLING),
        ("Memcpy DtoH (Device -> Pinned)", Kind.COPIES),
        ("Memset (Device)", Kind.COPIES),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>", Kind.ELEMENTWISE),
    ],
)
def test_kernels_are_known_by_their_names(name: str, kind: Kind) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("decode_attention", Kind.ATTENTION),
        ("prefill_attention", Kind.ATTENTION),
        ("nucleus", Kind.SAMPLING),
        ("rms_norm", Kind.ELEMENTWISE),
        ("rotary_write", Kind.ELEMENTWISE),
        ("silu_multiply", Kind.ELEMENTWISE),
    ],
)
def test_our_own_kernels_are_known_by_their_names(module: str, kind: Kind) -> None:
    launched = re.findall(r"^ +(_\w+)\[\(", (KERNELS / f"{module}.py").read_text(), re.MULTILINE)
    assert {kind_of(name) for name in launched} == {kind}


def test_a_device_is_busy_while_any_kernel_runs() -> None:
    spans = [Span("gemm", 0, 10, 10), Span("rms_norm", 5, 12, 7), Span("Memcpy DtoH", 20, 25, 5), Span("rms_norm", 21, 22, 1)]
    assert busy_us(spans) == 17
    parts = split(spans)
    assert parts.busy_share == 17 / 25
    assert parts.shares == pytest.approx({Kind.LINEARS: 0.4, Kind.ELEMENTWISE: 0.32, Kind.COPIES: 0.2, Kind.ATTENTION: 0, Kind.SAMPLING: 0})


def test_a_trace_without_kernels_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no kernels"):
        split([])


def test_what_a_part_leaves_goes_to_the_others() -> None:
    now = [100.0]
    budget = Budget(80, {"first": 3, "second": 1, "third": 4}, clock=lambda: now[0])
    assert budget.begin("first").end_s == 130
    now[0] = 110
    second = budget.begin("second")
    assert second.left_s == 70 / 5
    now[0] = 200
    assert (second.left_s, budget.begin("third").left_s) == (0, 0)


def test_the_first_cell_pays_for_compilation_and_the_others_are_not_expected_to() -> None:
    pace = Pace()
    assert pace.expected_s(1) == 6
    for took_s in (30, 2, 4):
        pace.note(1, took_s)
    assert pace.expected_s(10) == 1.5 * 2 * 10


class FakePart:
    """Takes a second a stream; two streams fail."""

    name, who = "fake", "nobody"
    cells = (Cell(1, 8), Cell(2, 8), Cell(9, 8))

    def __init__(self) -> None:
        self.measured: list[Cell] = []

    def least_s(self, cell: Cell) -> float:
        return float(cell.streams)

    def measure(self, cell: Cell) -> dict[str, float]:
        self.measured.append(cell)
        if cell.streams == 2:
            raise RuntimeError("out of memory\nand a long story")
        return {"tokens_per_s": 1.0}


def test_a_cell_that_fails_and_one_without_time_are_rows_that_say_so() -> None:
    part, rows = FakePart(), list[Row]()
    allotment = Budget(14, {"fake": 1}, clock=lambda: 0.0).begin("fake")
    part.cells = (Cell(2, 8), Cell(9, 8), Cell(1, 8))
    run_part(part, allotment, rows.append)
    assert part.measured == [Cell(2, 8), Cell(1, 8)]
    assert [row.note for row in rows] == ["RuntimeError: out of memory", "skipped: out of time, about 54 s needed and 14 left", ""]
    assert list(notes(rows))[0] == "fake nobody, 2 × 8: RuntimeError: out of memory"


def test_cells_with_goals_come_first() -> None:
    cells = cells_by_importance([1, 8, 32, 64, 128, 256], [128, 1024, 4096])
    assert [str(cell) for cell in cells[:4]] == ["1 × 1024", "64 × 1024", "256 × 1024", "8 × 1024"]
    assert len(cells) == 18
    assert cells[-1] == Cell(128, 4096)


def test_a_figure_is_not_lost_to_a_run_without_time(tmp_path: Path) -> None:
    def results() -> Results:
        return Results.beside_earlier(tmp_path / "gpu.json", "GPU", "8b", Machine.here(), H200)

    results().add(Row("offline", "engine", Cell(1, 8), {"tokens_per_s": 1.0}))
    results().add(Row("offline", "engine", Cell(1, 8), note="skipped"))
    results().add(Row("offline", "engine", Cell(2, 8), note="skipped"))
    assert [row.figures for row in results().rows] == [{"tokens_per_s": 1.0}, {}]
    results().add(Row("offline", "engine", Cell(1, 8), {"tokens_per_s": 2.0}))
    assert [row.figures for row in results().rows] == [{"tokens_per_s": 2.0}, {}]


def test_goals_stand_beside_what_was_measured() -> None:
    rows = [
        Row("offline", "engine", Cell(64, 1024), {"tokens_per_s": 8800.0, "share_of_bound": 0.7}),
        Row("offline", "engine", Cell(1, 1024), {"tokens_per_s": 105.0, "share_of_bound": 0.35}),
        Row("offline", "engine", Cell(256, 1024), note="skipped"),
        Row("prefill", "engine", Cell(1, 128), {"share_of_peak": 0.1}),
        Row("prefill", "engine", Cell(8, 4096), {"share_of_peak": 0.6}),
    ]
    assert [goal.reached(rows) for goal in GOALS["8b"]] == [105, 8800, None, None, 0.6]
    console = Console(width=120, file=io.StringIO())
    console.print(*tables(rows, "8b"))
    said = console.file.getvalue()
    assert [said.count(words) for words in ("reached", "50% of it", "not measured")] == [2, 1, 2]
