"""The Azure conversation trace of 2023 on an H100: every request and every token is accounted for."""

import numpy as np
import pytest

import baselines
import llmsched_env as ls

GPU = "llama-3.1-8b_h100-80gb_tp1_aic"
FILE = "traces/azure_2023/AzureLLMInferenceTrace_conv.rows00001-10000.csv"
SCHEDULERS = {
    "fastertransformer": baselines.fastertransformer(token_budget=16384),
    "vllm_prefill_first": baselines.vllm_prefill_first(token_budget=16384),
    "orca": baselines.orca(token_budget=512),
    "sarathi": baselines.sarathi(token_budget=512),
}


@pytest.fixture(scope="module")
def trace(shared):
    return ls.load_trace(shared / FILE)


@pytest.mark.parametrize("load", [None, 0.8, 0.95], ids=["as recorded", "load 0.8", "load 0.95"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_token_of_10_000_requests_is_accounted_for(trace, shared, name, load):
    engine = ls.EngineConfig.for_gpu(GPU)
    workload = trace if load is None else trace.at_load(load, engine)
    drained = ls.simulate(SCHEDULERS[name], workload, engine)
    check_accounts(drained)
    rows = drained.requests
    assert len(rows) == 10_000 and set(rows.status) == {"finished"} and not drained.stalled
    assert drained.load == pytest.approx(load) if load else 0.1 < drained.load < 0.5
    assert [rows.prompt_tokens.sum(), rows.generated.sum()] == sums_of_columns(shared / FILE)
    assert drained.backlog(drained.end) == drained.number_in_system(drained.end) == 0
    mean_number = drained.summary()["mean_num_in_system"]
    assert mean_number * drained.end == pytest.approx((rows.finish - rows.arrival).sum())  # Little's law

    middle = float(rows.arrival[6000])
    stopped = ls.simulate(SCHEDULERS[name], workload, engine, horizon=middle)
    check_accounts(stopped)
    assert len(stopped.requests) == np.count_nonzero(rows.arrival <= middle) >= 6001
    assert np.any(stopped.requests.status == "active")
    done = stopped.requests.status == "finished"
    assert np.array_equal(stopped.requests.finish[done], rows.finish[: len(done)][done])
    assert (rows.finish[: len(done)][~done] > middle).all()


def check_accounts(result):
    """Finished + in system = arrived, in requests and in tokens."""
    rows, batches = result.requests, result.batches
    finished, active = rows.status == "finished", rows.status == "active"
    assert finished.sum() + active.sum() == len(rows)
    assert result.number_in_system(result.end) == active.sum()
    assert (rows.generated[finished] == rows.output_tokens[finished]).all()
    assert (rows.computed[finished] == (rows.prompt_tokens + rows.output_tokens - 1)[finished]).all()
    assert (rows.generated[active] < rows.output_tokens[active]).all()
    arrived = (rows.prompt_tokens + rows.output_tokens - 1).sum()
    served = batches.prefill_tokens.sum() + batches.decode_tokens.sum()
    assert served == rows.computed.sum() + rows.recomputed.sum()
    assert result.backlog(result.end) == arrived - rows.computed.sum()
    assert result.token_gaps[:, 2].sum() == np.maximum(rows.generated - 1, 0).sum()
    assert batches.kv_blocks_used.max() <= result.engine.kv_blocks
    ends = batches.start + batches.duration
    assert (batches.start[1:] >= ends[:-1] - 1e-9).all()


def sums_of_columns(path) -> list[int]:
    cells = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert len(cells) == 10_000
    return [sum(int(row[1]) for row in cells), sum(int(row[2]) for row in cells)]
