// Samples of image streams from the server, in the worker. What is asked for in one turn goes in one
// request: to a browser three requests cost three times as much as one.

// The server gave no answer at all: nothing is known about the sample.
export class Unreachable extends Error {}

interface Asked {
  query: string;
  take: (data: ArrayBuffer) => void;
  fail: (error: Error) => void;
}

export class PictureLine {
  private asked: Asked[] = [];

  // address: of `pictures` on the server, with a query.
  constructor(private readonly address: string) {}

  get(what: "frame" | "packets", stream: string, i: number): Promise<ArrayBuffer> {
    return new Promise((take, fail) => {
      if (!this.asked.length) queueMicrotask(() => void this.send(this.asked.splice(0)));
      this.asked.push({ query: `${what}=${encodeURIComponent(`${stream}/${i}`)}`, take, fail });
    });
  }

  private async send(asked: Asked[]): Promise<void> {
    try {
      const response = await fetch([this.address, ...asked.map((a) => a.query)].join("&"), { priority: "high" }).catch(() => {
        throw new Unreachable("the server does not answer");
      });
      if (!response.ok) throw new Error(await whatIsWrong(response));
      const data = await response.arrayBuffer();
      const head = new DataView(data);
      let at = 0;
      for (const { take, fail } of asked) {
        const [status, length] = [head.getUint32(at, true), head.getUint32(at + 4, true)];
        const part = data.slice(at + 8, at + 8 + length);
        at += 8 + length;
        if (status === 200) take(part);
        else fail(new Error(new TextDecoder().decode(part)));
      }
    } catch (error) {
      for (const { fail } of asked) fail(error as Error);
    }
  }
}

async function whatIsWrong(response: Response): Promise<string> {
  const text = await response.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.slice(0, 300);
  }
}
