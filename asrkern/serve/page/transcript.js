// The words on the page: in the text, under the spectrogram, and in the forms of downloads.
import { pixelsPerSecond } from "/page/spectrogram.js";

const DOUBTFUL = 0.6;

const clock = (seconds, point) => {
  const ms = Math.round(1000 * seconds);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const rest = String(ms % 1000).padStart(3, "0");
  return `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}${point}${rest}`;
};

const times = ({ start, end }, point) => `${clock(start, point)} --> ${clock(end, point)}`;
const markup = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const forms = {
  txt: (result) => `${result.text}\n`,
  srt: ({ segments }) => segments.map((s, i) => `${i + 1}\n${times(s, ",")}\n${s.text}\n`).join("\n"),
  vtt: ({ segments }) => ["WEBVTT\n", ...segments.map((s) => `${times(s, ".")}\n${markup(s.text)}\n`)].join("\n"),
  json: (result) => `${JSON.stringify(result, null, 2)}\n`,
};

export class Transcript {
  constructor(words, tail, labels, detail, buttons) {
    Object.assign(this, { words, tail, labels, detail, buttons });
    words.addEventListener("keydown", (event) => this.step(event));
    words.addEventListener("focusin", (event) => this.tell(event.target));
    words.addEventListener("mouseover", (event) => this.tell(event.target));
    for (const button of buttons) button.addEventListener("click", () => this.download(button.dataset.form));
  }

  clear() {
    this.result = null;
    this.words.replaceChildren();
    this.labels.replaceChildren();
    this.tail.textContent = this.detail.textContent = "";
    for (const button of this.buttons) button.disabled = true;
  }

  // Words that stay, and the rest, which may still change.
  add(words, tail) {
    for (const word of words) {
      const shown = document.createElement("button");
      shown.type = "button";
      shown.className = "word";
      shown.textContent = word.word;
      shown.dataset.detail = `${word.word}: ${word.start.toFixed(2)} to ${word.end.toFixed(2)} s, confidence ${word.confidence.toFixed(2)}`;
      shown.title = shown.dataset.detail;
      shown.tabIndex = this.words.children.length ? -1 : 0;
      const label = document.createElement("span");
      label.textContent = word.word;
      label.title = shown.title;
      label.style.left = `${word.start * pixelsPerSecond}px`;
      for (const element of [shown, label]) element.classList.toggle("doubtful", word.confidence < DOUBTFUL);
      this.words.append(shown, " ");
      this.labels.append(label);
    }
    this.tail.textContent = tail;
  }

  // The whole, at the end.
  finish(result) {
    this.clear();
    this.result = result;
    if (result.words) this.add(result.words, "");
    else this.tail.textContent = result.text;
    for (const button of this.buttons) {
      button.disabled = !result.segments && ["srt", "vtt"].includes(button.dataset.form);
    }
  }

  tell(element) {
    if (element.dataset.detail) this.detail.textContent = element.dataset.detail;
  }

  step(event) {
    const words = [...this.words.children];
    const now = words.indexOf(document.activeElement);
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: words.length - 1 }[event.key];
    if (next === undefined || !words[next]) return;
    event.preventDefault();
    words[now].tabIndex = -1;
    words[next].tabIndex = 0;
    words[next].focus();
  }

  download(form) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([forms[form](this.result)], { type: "text/plain" }));
    link.download = `transcript.${form}`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}
