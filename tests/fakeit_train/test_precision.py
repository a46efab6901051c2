import pytest
import torch

from fakeit_train.precision import precision_on

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(("is_native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_precision__auto_follows_the_gpu(is_native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return is_native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert precision_on(CUDA, "auto") == expected
    assert precision_on(CUDA, "float32") == "float32" and precision_on(CPU, "auto") == "float32"
