"""OpenAI's own client."""

from __future__ import annotations

import pytest

from tests.cli.tiny import speech
from tests.serve.live import Live, as_file

openai = pytest.importorskip("openai")


def test_transcriptions(live: Live) -> None:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        file = ("speech.wav", as_file(speech(2.5)))
        create = client.audio.transcriptions.create
        text = create(model="asrkern", file=file).text
        assert text == live.post(file[1]).json()["text"]
        assert create(model="asrkern", file=file, response_format="text") == text + "\n"
        found = create(
            model="asrkern",
            file=file,
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
            language="en",
            temperature=0.0,
        )
        assert found.text == text and found.duration == 2.5
        assert " ".join(word.word for word in found.words) == text
        assert found.words[0].start < found.words[0].end <= found.segments[-1].end
        hot = create(model="asrkern", file=file, extra_body={"hotwords": ["papapa"], "hotword_weight": 50})
        assert (
            hot.text
            == live.post(file[1], ("hotwords", "papapa"), ("hotword_weight", "50")).json()["text"]
            != text
        )
        with pytest.raises(openai.BadRequestError, match="expected a complete audio file"):
            create(model="asrkern", file=("speech.wav", b"no audio" * 50))
