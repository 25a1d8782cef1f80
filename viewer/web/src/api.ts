// HTTP with the server. Sample data carries the file's version and is cached by the browser.

import type { Change, Manifest, Operation } from "./types";

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly facts: Record<string, any>,
  ) {
    super(message);
  }
}

// How long to wait before asking again for what did not come.
export const RETRY_MS = 2000;

export interface Standing {
  editable: boolean;
  revision: number;
  hash?: string;
  can_undo?: boolean;
  can_redo?: boolean;
  unpublished?: boolean;
}

// The server's answer, whatever it is; an Error that says so where there is none.
async function reach(path: string, request?: RequestInit): Promise<Response> {
  try {
    return await fetch(path, request);
  } catch {
    throw new Error("the server does not answer");
  }
}

export class Api {
  constructor(public user: string) {}

  async json<T = any>(path: string, body?: unknown, method?: string): Promise<T> {
    const response = await reach(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: {
        "x-user": this.user,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    let answer: any = {};
    try {
      answer = JSON.parse(text);
    } catch {
      answer = { error: text.slice(0, 300) };
    }
    if (!response.ok)
      throw new ApiError(answer.error ?? response.statusText, response.status, answer);
    return answer as T;
  }

  async binary(path: string): Promise<ArrayBuffer> {
    const response = await reach(path);
    if (!response.ok) throw await this.failure(response);
    return response.arrayBuffer();
  }

  private async failure(response: Response): Promise<ApiError> {
    const text = await response.text();
    try {
      const answer = JSON.parse(text);
      return new ApiError(answer.error ?? text, response.status, answer);
    } catch {
      return new ApiError(text.slice(0, 300), response.status, {});
    }
  }
}

// Addresses below one episode.
export class EpisodeApi {
  constructor(
    readonly api: Api,
    readonly manifest: Manifest,
  ) {}

  data(...parts: (string | number)[]): string {
    const path = parts.map((p) => encodeURIComponent(String(p))).join("/");
    return `/api/e/${this.manifest.key}/${path}?v=${this.manifest.version}`;
  }

  call<T = any>(path: string, body?: unknown, method?: string): Promise<T> {
    return this.api.json<T>(`/api/e/${this.manifest.key}/${path}`, body, method);
  }

  layer<T = any>(layer: string, action: string, body?: unknown): Promise<T> {
    const tail = action ? `/${action}` : "";
    return this.call<T>(`layers/${encodeURIComponent(layer)}${tail}`, body);
  }

  edit(layer: string, base: number, changes: Change[], request: string) {
    return this.layer<Standing & { operation: Operation }>(layer, "edit", {
      base,
      changes,
      request,
    });
  }
}
