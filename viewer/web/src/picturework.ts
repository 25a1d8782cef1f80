// The worker that fetches and decodes pictures, so that neither waits for the page nor the page for
// them. WebCodecs for stored video packets where the browser takes them, else images.

import { PictureLine, Unreachable } from "./pictureline";
import { VideoFrames } from "./videoframes";

export interface Open {
  source: number;
  address: string; // of `pictures` on the server
  stream: string;
  encoding: string; // of what is stored
}

export type ToWorker = { open: Open } | { ask: [source: number, i: number][] };

export interface FromWorker {
  source: number;
  i: number;
  bitmap?: ImageBitmap;
  error?: string;
  how: string;
}

const VIDEO = ["h264", "av1", "vp9"];
const STORED_IMAGES = ["jpeg", "png", "webp"];
const lines = new Map<string, PictureLine>();
const sources = new Map<number, Source>();
const post = (self as unknown as { postMessage(m: FromWorker, t: Transferable[]): void }).postMessage.bind(self);

class Source {
  private how = "image";
  private video: VideoFrames | null = null;
  private readonly line: PictureLine;

  constructor(private readonly open: Open) {
    const { address, stream, encoding } = open;
    const video = VIDEO.includes(encoding) && "VideoDecoder" in self;
    // What the server has to decode first keeps nothing else waiting.
    const shared = video || STORED_IMAGES.includes(encoding);
    this.line = (shared && lines.get(address)) || new PictureLine(address);
    if (shared) lines.set(address, this.line);
    if (!video) return;
    this.how = `${encoding} WebCodecs`;
    this.video = new VideoFrames(
      encoding,
      (i) => this.line.get("packets", stream, i),
      (i, frame) => void toBitmap(frame).then((bitmap) => this.tell(i, bitmap)),
    );
  }

  async answer(i: number): Promise<void> {
    try {
      this.tell(i, await this.picture(i));
    } catch (error: any) {
      post({ source: this.open.source, i, error: String(error.message ?? error), how: this.how }, []);
    }
  }

  private async picture(i: number): Promise<ImageBitmap> {
    if (this.video)
      try {
        return await toBitmap(await this.video.frame(i));
      } catch (error) {
        if (error instanceof Unreachable) throw error;
        console.warn(`${this.open.stream}: falling back to images`, error);
        this.video = null;
        this.how = "image";
      }
    const data = await this.line.get("frame", this.open.stream, i);
    return createImageBitmap(new Blob([data], { type: mediaType(data) }), { colorSpaceConversion: "none" });
  }

  private tell(i: number, bitmap: ImageBitmap): void {
    post({ source: this.open.source, i, bitmap, how: this.how }, [bitmap]);
  }
}

async function toBitmap(frame: VideoFrame): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(frame);
  } finally {
    frame.close();
  }
}

function mediaType(data: ArrayBuffer): string {
  const first = new Uint8Array(data, 0, Math.min(1, data.byteLength))[0];
  return first === 0x89 ? "image/png" : first === 0x52 ? "image/webp" : "image/jpeg";
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if ("open" in data) sources.set(data.open.source, new Source(data.open));
  else for (const [source, i] of data.ask) void sources.get(source)!.answer(i);
};
