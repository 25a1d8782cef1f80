// The instants of one stream, and which sample belongs to a cursor.

export class Stamps {
  readonly period: number;

  constructor(readonly ns: Float64Array) {
    const n = ns.length;
    if (n < 2) this.period = 0;
    else {
      const count = Math.min(n - 1, 2001);
      const stride = Math.max(1, Math.floor((n - 1) / count));
      const steps = [];
      for (let i = 1; i < n; i += stride) steps.push(ns[i] - ns[i - 1]);
      steps.sort((a, b) => a - b);
      this.period = steps[steps.length >> 1];
    }
  }

  get length(): number {
    return this.ns.length;
  }

  // First sample at or after t.
  lower(t: number): number {
    let low = 0;
    let high = this.ns.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ns[middle] < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // The sample nearest in time; of two equally near ones the earlier. -1 when there is none.
  nearest(t: number): number {
    const n = this.ns.length;
    if (!n) return -1;
    const right = this.lower(t);
    if (right === 0) return 0;
    if (right === n) return this.first(n - 1);
    return t - this.ns[right - 1] <= this.ns[right] - t ? this.first(right - 1) : right;
  }

  // The next sample after t (step 1) or before it (step -1); t itself at the ends.
  step(t: number, by: number): number {
    if (!this.ns.length) return t;
    let at = t;
    for (let k = 0; k < Math.abs(by); k++) {
      const i = this.lower(at);
      if (by < 0) at = i > 0 ? this.ns[i - 1] : at;
      else {
        let j = i;
        while (j < this.ns.length && this.ns[j] <= at) j++;
        at = j < this.ns.length ? this.ns[j] : at;
      }
    }
    return at;
  }

  private first(i: number): number {
    while (i > 0 && this.ns[i - 1] === this.ns[i]) i--;
    return i;
  }
}
