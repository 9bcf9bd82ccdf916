// SHA-256 (FIPS 180-4), for pages that come by plain http from another machine: browsers keep theirs from those.

const isPrime = (n) => n > 1 && !Array.from({ length: n - 2 }, (_, i) => i + 2).some((d) => n % d === 0);
const PRIMES = Array.from({ length: 312 }, (_, n) => n).filter(isPrime); // the first 64
const fraction = (root) => Math.floor((root - Math.floor(root)) * 2 ** 32) >>> 0;
const ROUNDS = PRIMES.map((prime) => fraction(Math.cbrt(prime)));
const START = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
const turned = (word, by) => (word >>> by) | (word << (32 - by));

function padded(bytes) {
  const whole = new DataView(new ArrayBuffer(Math.ceil((bytes.length + 9) / 64) * 64));
  bytes.forEach((byte, at) => whole.setUint8(at, byte));
  whole.setUint8(bytes.length, 0x80);
  whole.setUint32(whole.byteLength - 4, bytes.length * 8);
  return whole;
}

function spread(block, from) {
  const words = Array.from({ length: 16 }, (_, at) => block.getUint32(from + at * 4));
  for (let at = 16; at < 64; at++) {
    const [old, late] = [words[at - 15], words[at - 2]];
    const s0 = turned(old, 7) ^ turned(old, 18) ^ (old >>> 3);
    const s1 = turned(late, 17) ^ turned(late, 19) ^ (late >>> 10);
    words.push((words[at - 16] + s0 + words[at - 7] + s1) >>> 0);
  }
  return words;
}

function mixed(state, words) {
  let [a, b, c, d, e, f, g, h] = state;
  words.forEach((word, at) => {
    const s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
    const one = h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[at] + word;
    const s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
    const other = s0 + ((a & b) ^ (a & c) ^ (b & c));
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) >>> 0, c, b, a, (one + other) >>> 0];
  });
  return [a, b, c, d, e, f, g, h].map((word, at) => (word + state[at]) >>> 0);
}

/** Of bytes, as bytes. */
export function sha256(bytes) {
  const block = padded(bytes);
  let state = START;
  for (let from = 0; from < block.byteLength; from += 64) state = mixed(state, spread(block, from));
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, at) => digest.setUint32(at * 4, word));
  return new Uint8Array(digest.buffer);
}
