"""Start a server, ask it once as a client would, and stop it.

python examples/serve.py [CHECKPOINT AUDIO]

Without files the model is that of train.py, and speech is made up. Needs pip install 'asrkern[cli,serve]' urllib3.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import made_up
import soundfile
import urllib3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="CHECKPOINT AUDIO")
    options = parser.parse_args()
    if len(options.files) not in (0, 2):
        parser.error(f"expected two files or none, received {len(options.files)}")
    checkpoint, audio = options.files or (made_up.checkpoint(), made_up.FOLDER / "speech.flac")
    if not options.files:
        text = made_up.sentence(4, seed=1000)
        print(f"said: {text}")
        soundfile.write(audio, made_up.speak(text, 1000), made_up.RATE)

    # Port 0: one that is free.
    command = [sys.executable, "-m", "asrkern", "serve", str(checkpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address, _, rest = server.stdout.readline().partition(" ")
            if not address:
                sys.exit("the server did not start")
            print(f"{address} {rest.strip()}")
            answer = urllib3.request(
                "POST",
                f"{address}v1/audio/transcriptions",
                fields={"file": (Path(audio).name, Path(audio).read_bytes())},
            )
            print(f"heard: {answer.json()['text']}")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
