"""Train a recogniser on a folder of recordings, each beside its transcript: talk.wav, talk.txt.

python examples/train.py [FOLDER] [--recipe RECIPE] [--out DIR]

Needs pip install 'asrkern[train]'. Without a folder, speech is made up. Recipes for real speech are in recipes/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import made_up

import asrkern

HELD_OUT = 10  # one recording in so many is for validation


def write_manifests(folder: Path, out: Path) -> tuple[Path, Path]:
    """train.jsonl and valid.jsonl, with a line for each recording."""
    recordings = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    recordings = [path for path in recordings if path.with_suffix(".txt").exists()]
    if len(recordings) < HELD_OUT:
        sys.exit(
            f"{folder}: expected {HELD_OUT} recordings with transcripts or more, found {len(recordings)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {"audio_filepath": str(path.resolve()), "text": path.with_suffix(".txt").read_text("utf-8")}
        )
        for path in recordings
    ]
    train, valid = out / "train.jsonl", out / "valid.jsonl"
    train.write_text("\n".join(line for i, line in enumerate(lines) if i % HELD_OUT), "utf-8")
    valid.write_text("\n".join(lines[::HELD_OUT]), "utf-8")
    return train.resolve(), valid.resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("train.toml"))
    parser.add_argument("--out", type=Path, default=made_up.CHECKPOINT.parent)
    options = parser.parse_args()
    if options.folder is None:
        options.folder = made_up.FOLDER / "recordings"
        made_up.write_folder(options.folder, 190)

    train, valid = write_manifests(options.folder, options.out)
    data = [f'data.train=["{train}"]', f'data.valid=["{valid}"]']
    command = [
        sys.executable,
        "-m",
        "asrkern",
        "train",
        str(options.recipe),
        *data,
        "--out",
        str(options.out),
    ]
    if status := subprocess.run(command).returncode:
        sys.exit(status)

    recognizer = asrkern.load(options.out / "best.safetensors")
    for line in valid.read_text("utf-8").splitlines()[:5]:
        said = json.loads(line)
        heard = recognizer.transcribe(said["audio_filepath"])
        print(f"said: {said['text'].strip()}\nheard: {heard.text}")


if __name__ == "__main__":
    main()
