// The canvas of the 3D scene. Drawn without a GPU, a WebGL canvas on the page stops the page until it
// is finished, since the browser then waits to read its pixels. There the scene is drawn beside the
// page and its pixels are fetched once they are done.

import * as THREE from "three";

export class SceneCanvas {
  // What stands in the page.
  readonly element: HTMLCanvasElement;
  readonly renderer: THREE.WebGLRenderer;
  readonly software = rendersInSoftware();
  private readonly copy: Copy | null;

  constructor() {
    const canvas = document.createElement("canvas");
    // Without a GPU every sample of a pixel costs as much as the pixel.
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: !this.software, preserveDrawingBuffer: true, powerPreference: "high-performance" });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.copy = this.software ? new Copy(this.renderer.getContext() as WebGL2RenderingContext) : null;
    this.element = this.copy?.element ?? canvas;
  }

  resize(width: number, height: number): void {
    const size = this.renderer.getSize(new THREE.Vector2());
    if (size.x !== width || size.y !== height) this.renderer.setSize(width, height, false);
  }

  // To be called after drawing.
  show(): void {
    this.copy?.begin();
  }

  // Whether what was drawn last is still on its way to the page. Asked every frame.
  get busy(): boolean {
    return this.copy?.busy() ?? false;
  }
}

class Copy {
  readonly element = document.createElement("canvas");
  private readonly context = this.element.getContext("2d", { alpha: false })!;
  private readonly buffer: WebGLBuffer;
  private fence: WebGLSync | null = null;
  private image = new ImageData(1, 1);

  constructor(private readonly gl: WebGL2RenderingContext) {
    this.buffer = gl.createBuffer()!;
    // WebGL's rows go from the bottom up.
    this.element.style.transform = "scaleY(-1)";
  }

  begin(): void {
    const { gl } = this;
    const [width, height] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, this.buffer);
    if (this.image.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      gl.bufferData(gl.PIXEL_PACK_BUFFER, this.image.data.byteLength, gl.STREAM_READ);
    }
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, 0);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
    gl.deleteSync(this.fence);
    this.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
  }

  busy(): boolean {
    const { gl, image, element } = this;
    if (!this.fence) return false;
    if (gl.getSyncParameter(this.fence, gl.SYNC_STATUS) !== gl.SIGNALED && !gl.isContextLost()) return true;
    gl.deleteSync(this.fence);
    this.fence = null;
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, this.buffer);
    gl.getBufferSubData(gl.PIXEL_PACK_BUFFER, 0, image.data);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
    if (element.width !== image.width) element.width = image.width;
    if (element.height !== image.height) element.height = image.height;
    this.context.putImageData(image, 0, 0);
    return false;
  }
}

// Whether WebGL runs on the CPU here, where a point costs about 0.3 µs.
function rendersInSoftware(): boolean {
  const gl = document.createElement("canvas").getContext("webgl2");
  const debug = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = gl && debug ? String(gl.getParameter(debug.UNMASKED_RENDERER_WEBGL)) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software/i.test(name);
}
