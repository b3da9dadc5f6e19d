"""benchmarks/models/bits.py: a row for each format, against float32's texts."""

import json

import soundfile
import torch

from asrkern.recognizer.saved import save
from benchmarks.models import bits
from tests.recognizer.test_saved import classifier, ctc


def test_table_of_a_ctc_model():
    recognizer, waveforms = ctc(hidden_size=20), [torch.randn(8000), torch.randn(5000)]
    references = [recognizer.predict_audio([samples])[0] for samples in waveforms]
    rows = bits.table(recognizer, waveforms, references)
    assert [row[""] for row in rows] == ["float32", *bits.FORMATS]
    assert rows[0]["CER"] == "0.00 %" and rows[0]["other texts"] == "0 of 2"
    # A text that is another than float32's has an error, here.
    assert all((row["CER"] == "0.00 %") == (row["other texts"] == "0 of 2") for row in rows)


def test_command(tmp_path, capsys):
    save(tmp_path / "model.safetensors", classifier())
    lines = []
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", torch.randn(16000).mul(0.1).numpy(), 16000)
        line = {"audio_filepath": f"{i}.wav", "duration": 1.0, "text": ("bed", "cat", "bed")[i]}
        lines.append(json.dumps(line))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    assert bits.main([str(tmp_path / "model.safetensors"), str(tmp_path / "manifest.jsonl")]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert "ACCURACY" in header and [row.split("|")[1].strip() for row in rows] == ["float32", *bits.FORMATS]
