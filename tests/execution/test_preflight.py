"""Whether torch can compute on a GPU, by what CUDA says where it cannot, and by this machine."""

import subprocess
import sys

import pytest
import torch
from gpus import NEEDS_GPU

from ablate.errors import AblateError
from ablate.execution import preflight


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "CUDA error: no kernel image is available for execution on the device\nFor debugging, ...",
            "has no kernels for it (it has sm_75, sm_90): install a torch that has (CUDA error: no kernel",
        ),
        (
            "The NVIDIA driver on your system is too old (found version 12020).",
            "its driver is too old for torch",
        ),
        (
            "CUDA error: CUDA driver version is insufficient for CUDA runtime",
            "built for CUDA 13.2: update the",
        ),
        ("Torch not compiled with CUDA enabled", "is built without CUDA"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", "another process has it"),
        ("CUDA error: out of memory", "its memory is full"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "its memory is full"),
        ("Error 802: system not yet initialized", "nvidia-fabricmanager is not running: start it"),
        (
            "Error 803: system has unsupported display driver / cuda driver combination",
            "restart this machine",
        ),
        ("CUDA error: uncorrectable ECC error encountered", "torch cannot compute on it (CUDA error: uncorr"),
        ("", "torch cannot compute on it (RuntimeError)"),
    ],
)
def test_what_cuda_says_becomes_a_sentence_with_a_remedy(monkeypatch, said, sentence):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    described = preflight.describe(RuntimeError(said))
    assert sentence in described
    assert "\n" not in described


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here can compute")
def test_where_no_gpu_can_compute_the_check_fails_with_a_sentence():
    with pytest.raises(AblateError, match=r"\(.+\)$"):
        preflight.check("cuda")


@NEEDS_GPU
def test_a_gpu_that_computes_passes():
    preflight.check("cuda")
    assert preflight.examine(["0"]) == {}


def test_on_a_cpu_there_is_nothing_to_check(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    preflight.check("cpu")


def test_a_device_that_computes_wrongly_is_told_of(monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.full((8, 8), 2.0))
    with pytest.raises(AblateError, match=r"a sum that is 512 came out as 2048\.0"):
        preflight.check("cuda")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import json; print(json.dumps('is too old'))", "is too old"),
        ("print('\"\"')", None),
        ("raise SystemError('broken')", "the process that tried it has failed (SystemError: broken)"),
        ("import time; time.sleep(60)", "it has not answered within 1 s"),
    ],
)
def test_each_gpu_is_tried_in_a_process_of_its_own_with_a_limit(monkeypatch, code, sentence):
    real = subprocess.Popen
    monkeypatch.setattr(
        preflight.subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", code], **options)
    )
    expected = {} if sentence is None else {"GPU-a": sentence, "GPU-b": sentence}
    assert preflight.examine(["GPU-a", "GPU-b"], limit=1.0 if "sleep" in code else 60.0) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here can compute")
@pytest.mark.slow
def test_the_process_answers_with_the_sentence_of_the_check():
    (sentence,) = preflight.examine(["GPU-a"]).values()
    assert "the process that tried it" not in sentence
    assert "torch" in sentence
