// A strip of canvases, one for each ten seconds; audio is added in pieces of any length.
const SIZE = 512;
const COLUMNS_PER_SECOND = 100;
const TILE_COLUMNS = 1000;
const MOST_TILES = 180;
const FLOOR_DB = -90;

export const pixelsPerSecond = COLUMNS_PER_SECOND;

// In place, of SIZE values: the transform of Cooley and Tukey.
function transform(re, im) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let length = 2; length <= SIZE; length <<= 1) {
    const angle = (-2 * Math.PI) / length;
    for (let k = 0; k < length / 2; k++) {
      const c = Math.cos(angle * k), s = Math.sin(angle * k);
      for (let i = k; i < SIZE; i += length) {
        const j = i + length / 2;
        const x = re[j] * c - im[j] * s, y = re[j] * s + im[j] * c;
        re[j] = re[i] - x;
        im[j] = im[i] - y;
        re[i] += x;
        im[i] += y;
      }
    }
  }
}

const hann = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));

export class Spectrogram {
  constructor(element) {
    this.element = element;
    this.clear(16000);
  }

  clear(rate) {
    this.element.replaceChildren();
    this.hop = rate / COLUMNS_PER_SECOND;
    // Up to 8 kHz.
    this.bins = Math.round((SIZE / 2) * Math.min(1, 16000 / rate));
    this.column = 0;
    this.first = 0;
    this.samples = new Float32Array(0);
  }

  add(samples) {
    const joined = new Float32Array(this.samples.length + samples.length);
    joined.set(this.samples);
    joined.set(samples, this.samples.length);
    let start = Math.round(this.column * this.hop) - this.first;
    while (start + SIZE <= joined.length) {
      this.draw(joined.subarray(start, start + SIZE));
      this.column++;
      start = Math.round(this.column * this.hop) - this.first;
    }
    const kept = Math.min(start, joined.length);
    this.first += kept;
    this.samples = joined.slice(kept);
  }

  draw(window) {
    const x = this.column % TILE_COLUMNS;
    const tile = Math.floor(this.column / TILE_COLUMNS);
    if (tile >= MOST_TILES) return;
    if (tile >= this.element.children.length) {
      const canvas = document.createElement("canvas");
      canvas.width = TILE_COLUMNS;
      canvas.height = this.bins;
      // Without it the height in CSS would decide, and words would stand beside their columns.
      canvas.style.width = `${TILE_COLUMNS}px`;
      this.element.append(canvas);
      this.context = canvas.getContext("2d");
    }
    const re = window.map((value, i) => value * hann[i]), im = new Float32Array(SIZE);
    transform(re, im);
    const image = this.context.createImageData(1, this.bins);
    for (let bin = 0; bin < this.bins; bin++) {
      const db = 10 * Math.log10((re[bin] ** 2 + im[bin] ** 2) / SIZE + 1e-12);
      const level = Math.max(0, Math.min(1, 1 - db / FLOOR_DB));
      const at = 4 * (this.bins - 1 - bin);
      image.data.set([255 * level ** 2, 255 * level ** 1.2, 255 * (0.25 + 0.5 * level), 255], at);
    }
    this.context.putImageData(image, x, 0);
  }
}
