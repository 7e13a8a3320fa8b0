/** Waiting: an abortable pause, a back-off with jitter and a cap, and a few slots that callers take turns in. */

/**
 * Resolve after `ms`, or reject with the signal's reason.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Reject with the signal's reason as soon as it is aborted; never resolve.
 * @param {AbortSignal} signal
 * @returns {Promise<never>}
 */
export function aborted(signal) {
  return new Promise((_, reject) => {
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** Delays that double up to a cap, each shortened at random by up to half, so that clients don't return in step. */
export class Backoff {
  #failures = 0;

  /**
   * @param {{firstMs?: number, capMs?: number, random?: () => number}} [options]
   */
  constructor({ firstMs = 500, capMs = 20_000, random = Math.random } = {}) {
    this.firstMs = firstMs;
    this.capMs = capMs;
    this.random = random;
  }

  /** The next delay in milliseconds. */
  next() {
    const full = Math.min(this.capMs, this.firstMs * 2 ** Math.min(this.#failures++, 30));
    return full * (1 - this.random() / 2);
  }

  reset() {
    this.#failures = 0;
  }
}

/** A fixed number of slots, given in the order of asking: long-polls must not use up a browser's connections. */
export class Slots {
  /** @type {(() => void)[]} */
  #waiting = [];
  #free;

  /** @param {number} count */
  constructor(count) {
    this.#free = count;
  }

  /** Whether somebody is waiting for a slot. */
  get crowded() {
    return this.#waiting.length > 0;
  }

  /**
   * Take a slot; the returned function gives it back.
   * @param {AbortSignal} signal
   * @returns {Promise<() => void>}
   */
  async take(signal) {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else await this.#queue(signal);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    };
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<void>}
   */
  #queue(signal) {
    return new Promise((resolve, reject) => {
      const turn = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(turn), 1);
        reject(signal.reason);
      };
      this.#waiting.push(turn);
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}
