"""Which runtime is fastest for one image? The same model in several, taking turns in one process.

`python tools/compare_runtimes.py [checkpoint] [--threads 2] [--native 28]`; a runtime that is missing or fails is left
out with a line. None of the others is a dependency of the project: pip install openvino torchao to try them.
"""

import argparse
import tempfile
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from swys_utils.benchmark import device_name, interleaved_latency, random_inputs, speedup
from swys_utils.export import export_onnx, onnx_session, quantise_onnx_dynamic
from swys_utils.models import at_native_resolution, load_checkpoint


def pytorch(model, pixels):
    return lambda: model(pixels).float().numpy()


def torchao_int8(model, pixels):
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return pytorch(torch.compile(model), pixels)


def onnx_runtime(path, pixels, threads):
    session, inputs = onnx_session(path, threads), {"pixels": pixels.numpy()}
    return lambda: session.run(None, inputs)[0]


def openvino(path, pixels, threads, precision):
    from openvino import Core

    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled, inputs = Core().compile_model(str(path), "CPU", config), pixels.numpy()
    return lambda: compiled(inputs)[0]


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("checkpoint", nargs="?", default="pneumoniamnist/vit_tiny_kd")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--native", type=int, help="first rewrite the model for images of so many pixels")
o = parser.parse_args()
torch.set_num_threads(o.threads)
warnings.simplefilter("ignore")
model = load_checkpoint(o.checkpoint)[0]
model = at_native_resolution(model, o.native) if o.native else model
x, calls = random_inputs(model, 1), {}
with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    fp32 = export_onnx(model, Path(folder) / "fp32.onnx").path
    int8 = quantise_onnx_dynamic(fp32, Path(folder) / "int8.onnx").path
    makers = {
        "PyTorch fp32": lambda: pytorch(model, x),
        "torch.compile fp32": lambda: pytorch(torch.compile(model), x),
        "ONNX Runtime fp32": lambda: onnx_runtime(fp32, x, o.threads),
        "OpenVINO fp32": lambda: openvino(fp32, x, o.threads, "f32"),
        "PyTorch bf16": lambda: pytorch(deepcopy(model).bfloat16(), x.bfloat16()),
        "OpenVINO bf16": lambda: openvino(fp32, x, o.threads, "bf16"),
        "PyTorch int8": lambda: pytorch(torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}), x),
        "torchao int8, compiled": lambda: torchao_int8(deepcopy(model), x),
        "ONNX Runtime int8": lambda: onnx_runtime(int8, x, o.threads),
        "OpenVINO int8": lambda: openvino(int8, x, o.threads, "f32"),
    }
    for name, make in makers.items():
        try:
            calls[name] = make()
            print(f"{name:24} largest logit difference {np.abs(calls[name]() - model(x).numpy()).max():.1e}")
        except Exception as error:  # each runtime fails in its own way
            calls.pop(name, None)
            print(f"{name:24} left out: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}")
    timings = interleaved_latency(calls, 20)
print(f"\n{o.checkpoint}, {device_name()}, {o.threads} threads, one image")
for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
    ratio = "{:.2f}x PyTorch fp32 [{:.2f}, {:.2f}]".format(*speedup(timings["PyTorch fp32"], timing))
    print(f"{name:24} {timing}   {ratio}")
