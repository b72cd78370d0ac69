// In the audio thread: hands the microphone's samples to the page, a few blocks at a time.

const BLOCK = 2048; // samples

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
    this.port.onmessage = () => this.give(); // the end: what is left, then an empty block
  }

  give() {
    if (this.filled) this.port.postMessage(this.block.slice(0, this.filled));
    this.port.postMessage(new Float32Array(0));
    this.filled = 0;
  }

  process([input]) {
    const samples = input[0];
    for (let i = 0; samples && i < samples.length; i++) {
      this.block[this.filled++] = samples[i];
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
