// The page: microphone and recordings to the server, results to the transcript.
import { Spectrogram } from "/page/spectrogram.js";
import { Transcript } from "/page/transcript.js";

const MOST_DRAWN_BYTES = 64e6;
const $ = (id) => document.getElementById(id);
const say = (text) => ($("status").textContent = text);

const spectrogram = new Spectrogram($("tiles"));
const transcript = new Transcript($("words"), $("tail"), $("labels"), $("detail"), document.querySelectorAll("[data-form]"));
// Settings that the user has touched; the server's own count for the others.
const touched = new Set();
const about = fetch("/healthz").then((answer) => answer.json());
let recording = null;
let live = null;
let request = null;

function settings() {
  const hotwords = $("hotwords").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const values = hotwords.length ? { hotwords, hotword_weight: Number($("hotword_weight").value) } : {};
  for (const id of touched) values[id] = Number($(id).value);
  return values;
}

// What was heard last is at the right edge.
function toEnd() {
  $("strip").scrollLeft = spectrogram.column - $("strip").clientWidth;
}

async function draw(blob) {
  // Hours would fill the browser's memory.
  if (blob.size > MOST_DRAWN_BYTES) return;
  const context = new OfflineAudioContext(1, 1, 16000);
  const samples = (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
  spectrogram.clear(16000);
  for (let start = 0; start < samples.length && recording === blob; start += 160000) {
    spectrogram.add(samples.subarray(start, start + 160000));
    await new Promise((resolve) => setTimeout(resolve));
  }
}

async function transcribe(blob) {
  request?.abort();
  request = new AbortController();
  const form = new FormData();
  form.append("file", blob, "recording");
  form.append("response_format", "verbose_json");
  if ((await about).word_times) for (const each of ["word", "segment"]) form.append("timestamp_granularities[]", each);
  for (const [name, value] of Object.entries(settings())) for (const each of [value].flat()) form.append(name, each);
  const headers = $("key").value ? { Authorization: `Bearer ${$("key").value}` } : {};
  say("Listening to the recording …");
  try {
    const answer = await fetch("/v1/audio/transcriptions", { method: "POST", body: form, headers, signal: request.signal });
    const result = await answer.json();
    if (!answer.ok) throw new Error(result.error.message);
    transcript.finish(result);
    say(`${result.duration.toFixed(1)} s of audio.`);
  } catch (error) {
    if (error.name !== "AbortError") say(`Error: ${error.message}`);
  }
}

async function open(blob) {
  if (live) stop();
  recording = blob;
  transcript.clear();
  spectrogram.clear(16000);
  draw(blob).catch(() => say("This browser cannot show the recording."));
  await transcribe(blob);
}

// 16-bit samples as a WAV file, so that other settings can be tried on what was said.
function wav(pieces, rate) {
  const bytes = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, value) => [...value].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...pieces], { type: "audio/wav" });
}

function protocols() {
  const key = $("key").value;
  if (!key) return ["asrkern"];
  const encoded = btoa(String.fromCharCode(...new TextEncoder().encode(key)));
  return ["asrkern", `key.${encoded.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`];
}

async function listen() {
  request?.abort();
  recording = null;
  const media = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/page/recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder");
  const pieces = [];
  transcript.clear();
  spectrogram.clear(context.sampleRate);
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/audio/stream`, protocols());
  const mine = (live = { media, context, socket });
  let sent = 0;
  const send = () => {
    while (socket.readyState === WebSocket.OPEN && sent < pieces.length) socket.send(pieces[sent++]);
  };
  recorder.port.onmessage = ({ data }) => {
    if (live !== mine) return;
    pieces.push(data);
    spectrogram.add(Float32Array.from(data, (value) => value / 32768));
    toEnd();
    send();
  };
  socket.onopen = () => {
    socket.send(JSON.stringify({ type: "start", rate: context.sampleRate, ...settings() }));
    send();
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "ready") say(message.normalization_differs ? "Speak. (This model prefers whole recordings.)" : "Speak.");
    if (message.type === "partial") transcript.add(message.words, message.tail);
    if (message.type === "error") mine.error = message.error.message;
    if (message.type === "final") {
      transcript.finish(message);
      say(`${message.duration.toFixed(1)} s of audio.`);
    }
  };
  socket.onclose = () => {
    stop();
    if (pieces.length) recording = wav(pieces, context.sampleRate);
    if (mine.error) say(`Error: ${mine.error}`);
    else if (!transcript.result) say("Error: the server took no stream, or has ended it. Is it busy, or the key missing?");
  };
  context.createMediaStreamSource(media).connect(recorder);
  $("microphone").setAttribute("aria-pressed", "true");
  $("microphone").textContent = "Stop";
}

function stop() {
  if (!live) return;
  const { media, context, socket } = live;
  live = null;
  media.getTracks().forEach((track) => track.stop());
  context.close();
  const end = () => socket.send(JSON.stringify({ type: "end" }));
  if (socket.readyState === WebSocket.OPEN) end();
  if (socket.readyState === WebSocket.CONNECTING) socket.addEventListener("open", end);
  $("microphone").setAttribute("aria-pressed", "false");
  $("microphone").textContent = "Microphone";
}

function show(id) {
  document.querySelector(`output[for=${id}]`).textContent = touched.has(id) || id === "hotword_weight" ? $(id).value : "(the server's)";
}

$("microphone").addEventListener("click", () => (live ? stop() : listen().catch((error) => say(`Error: ${error.message}`))));
$("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) open(target.files[0]);
  target.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
for (const id of ["alpha", "beta"]) $(id).addEventListener("input", () => touched.add(id));
for (const id of ["hotword_weight", "alpha", "beta"]) {
  $(id).addEventListener("input", () => show(id));
  show(id);
}
for (const id of ["hotwords", "hotword_weight", "alpha", "beta"]) {
  $(id).addEventListener("change", () => recording && transcribe(recording));
}

const { model, key_needed, language_model, word_times, streams } = await about;
$("model").textContent = model;
$("key_label").hidden = !key_needed;
$("alpha").disabled = !language_model;
for (const id of ["hotwords", "hotword_weight", "beta"]) $(id).disabled = !word_times;
$("microphone").disabled = !streams;
if (!streams) say("Choose or drop a recording: this model does not hear live speech.");
