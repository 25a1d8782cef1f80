// Boot: choose an episode, load what all panels share, lay the panels out, run the one frame loop.

import { Api, ApiError, EpisodeApi } from "./api";
import { Sound } from "./audio";
import { CameraPanel } from "./cameras";
import { Clock } from "./clock";
import { listen } from "./commands";
import { decide } from "./dialogs";
import { h, reserveColours, themeChanged } from "./dom";
import { Worklist } from "./findings";
import { Frames, type PoseSeries } from "./frames";
import { Layers } from "./layers";
import { layout } from "./layout";
import { setChangePoints } from "./phases";
import { ScenePanel } from "./scene";
import { type Panel, type Preferences, Session } from "./session";
import { Sidebar } from "./sidebar";
import { SignalsPanel } from "./signals";
import { Stamps } from "./stamps";
import { TactilePanel } from "./tactile";
import { TimelinePanel } from "./timeline";
import { connect, showConflict } from "./together";
import { transport } from "./transport";
import type { Finding, Manifest, Phase, Taxonomy } from "./types";

const MOST_TOASTS = 3;
// The longest that a scene drawn in software waits for the pictures.
const SCENE_WAITS_MS = 250;
const query = new URLSearchParams(location.search);

function userName(): string {
  const given = query.get("user");
  if (given) localStorage.setItem("mmdata.user", given);
  return localStorage.getItem("mmdata.user") ?? "annotator";
}

async function boot(): Promise<void> {
  const api = new Api(userName());
  const preferences = await api.json<Preferences>("/api/preferences");
  setTheme(preferences.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
  const { episodes } = await api.json<{ episodes: { key: string; name: string; bytes: number }[] }>("/api/episodes");
  const wanted = query.get("ep");
  const chosen = wanted ? episodes.find((e) => e.name === wanted || e.key === wanted) : episodes.length === 1 ? episodes[0] : undefined;
  if (!chosen) return showList(episodes, wanted);
  try {
    await openEpisode(api, chosen.key, preferences, episodes);
  } catch (error) {
    showError(`${chosen.name} cannot be shown`, error, episodes.length > 1);
  }
}

function showList(episodes: { name: string; bytes: number }[], missing: string | null): void {
  document.body.replaceChildren(
    h(
      "main",
      { class: "list" },
      h("h1", {}, "Episodes"),
      missing ? h("p", { class: "bad" }, `There is no episode ${missing} here.`) : null,
      episodes.length ? null : h("p", {}, "No .h5 files in this folder."),
      ...episodes.map((e) => h("a", { href: `?ep=${encodeURIComponent(e.name)}`, class: "item" }, h("span", { class: "what" }, e.name), h("small", {}, `${(e.bytes / 1e6).toFixed(1)} MB`))),
    ),
  );
}

function showError(title: string, error: unknown, others: boolean): void {
  // The server answered, but could not read the file; or it did not answer.
  const hint = error instanceof ApiError ? "`mmdata verify` says what is wrong with the file." : "Is the server that `mmdata view` started still running? Load the page again when it is.";
  const text = String((error as Error).message ?? error);
  document.body.replaceChildren(
    h("main", { class: "list error", role: "alert" }, h("h1", {}, title), h("p", {}, text), h("p", {}, hint), others ? h("a", { href: "?" }, "Other episodes") : null),
  );
}

function setTheme(theme: "dark" | "light"): void {
  document.documentElement.dataset.theme = theme;
  themeChanged();
}

async function openEpisode(api: Api, key: string, preferences: Preferences, episodes: { key: string; name: string }[]): Promise<void> {
  const [manifest, taxonomy] = await Promise.all([api.json<Manifest>(`/api/e/${key}`), api.json<Taxonomy>("/api/taxonomy")]);
  const episode = new EpisodeApi(api, manifest);
  const stamps = new Map<string, Stamps>();
  const poses = new Map<string, PoseSeries>();
  await Promise.all(
    manifest.streams.map(async (stream) => {
      const own = new Stamps(new Float64Array(await api.binary(episode.data("stamps", stream.name))));
      stamps.set(stream.name, own);
      if (stream.moves && stream.count) {
        const [position, orientation] = await Promise.all([stream.position!, "orientation"].map((f) => api.binary(episode.data("values", stream.name, f))));
        poses.set(stream.name, { stamps: own, position: new Float64Array(position, 8), orientation: new Float64Array(orientation, 8) });
      }
    }),
  );
  for (const tier of taxonomy.tiers) reserveColours(tier.name === "motion" ? tier.labels.map((l) => l.label) : []);
  const clock = new Clock(manifest.duration);
  const layers = new Layers(episode);
  const session = new Session(episode, clock, stamps, new Frames(manifest, poses), layers, taxonomy);
  session.preferences = preferences;
  session.focus = session.cameraStreams()[0]?.name ?? manifest.streams[0]?.name ?? "";
  session.say = say;
  layers.failed = (message) => say(message, "bad");
  layers.conflict = (conflict) => void showConflict(session, conflict);
  await layers.load();
  // The tier in use; without labels, what moves itself makes manoeuvres and an arm motions.
  const used = layers.all<Phase>("phases").map((p) => p.item.tier);
  const guess = !session.hasArm && session.streams.some((s) => s.moves) ? "manoeuvre" : "motion";
  session.tier = preferences.tier ?? used[0] ?? guess;

  const cameras = new CameraPanel(session);
  const scene = new ScenePanel(session);
  const signals = new SignalsPanel(session);
  const tactile = new TactilePanel(session);
  const timeline = new TimelinePanel(session);
  const sound = new Sound(session);
  const worklist = new Worklist(session);
  worklist.reveal = (stream) => [cameras, signals].forEach((panel) => panel.reveal(stream));
  const publish = async () => {
    try {
      const answer = await layers.act("publish", {});
      say(`published ${layers.active} as revision ${answer.published}`);
    } catch (error: any) {
      if (!error.facts?.merge) return say(error.message, "bad");
      const text = h("p", {}, `${error.message}.`);
      if ((await decide("The file was changed by somebody else", text, ["Merge", "Not now"])) !== "Merge") return;
      const merged = await layers.act("merge", {});
      await layers.fetch(layers.active);
      say(merged.kept_ours.length ? `merged; kept ours of ${merged.kept_ours.length} changed by both` : "merged; publish again");
    }
  };
  const sidebar = new Sidebar(session, worklist, publish);
  timeline.onFinding = (finding, place) => worklist.jump(finding, place);

  const panels: Panel[] = [cameras, scene, signals, tactile, timeline, sidebar];
  const actions = {
    nextFinding: () => worklist.step(1),
    previousFinding: () => worklist.step(-1),
    enlarge: () => cameras.enlarge(session.focus) || say("no camera is in focus: O goes from stream to stream"),
    publish,
    theme: () => {
      session.preferences.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      setTheme(session.preferences.theme);
      session.touch();
      save();
    },
    sound: () => {
      sound.setMuted(!sound.muted);
      say(sound.available ? (sound.muted ? "sound off" : "sound on") : "no sound in this episode");
    },
  };
  let saving = 0;
  const save = () => {
    clearTimeout(saving);
    // Where it cannot be saved it holds for this page.
    saving = window.setTimeout(() => api.json("/api/preferences", session.preferences, "PUT").catch(() => {}), 400);
  };
  const bar = transport(session, episodes, actions, save);
  layout(session, { bar: bar.element, cameras, scene, signals, tactile, timeline, sidebar }, save);

  // -- findings, change points, others ---------------------------------------------------------
  let checked = -1;
  let labelFindings: Finding[] = [];
  let allFindings: Finding[] = [];
  const show = () => {
    worklist.set([...labelFindings, ...allFindings]);
    timeline.findings = worklist.findings;
    session.touch();
  };
  const check = async () => {
    const revision = layers.document?.standing.revision ?? 0;
    if (revision === checked || layers.saving !== "saved") return;
    checked = revision;
    labelFindings = (await episode.layer(layers.active, "findings")).findings;
    show();
  };
  const checkAgain = () =>
    void check().catch(() => {
      checked = -1; // with the next change, or the server back
    });
  layers.changed = () => {
    session.touch();
    bar.saved();
    checkAgain();
  };
  checkAgain();
  // Slow, and nobody waits for them: asked once the pictures are there.
  const later = async () => {
    while (!panels.every((p) => p.settled?.() ?? true)) await new Promise((resolve) => setTimeout(resolve, 200));
    setChangePoints((await episode.call("changepoints")).points);
    allFindings = (await episode.call("findings")).findings;
    worklist.checks = "done";
    show();
  };
  later().catch((error) => {
    worklist.checks = { failed: String(error.message ?? error) };
    show();
  });
  session.onReview = () => sidebar.reviewChanged();
  connect(session, timeline);

  // -- address -----------------------------------------------------------------------------------
  const t = Number(query.get("t"));
  if (query.has("t") && Number.isFinite(t)) clock.seek(t * 1e9);
  const layer = query.get("layer");
  if (layer && !layers.rows.some((row) => row.name === layer)) say(`There is no layer ${layer} here.`, "bad");
  else if (layer && layer !== layers.active) await layers.activate(layer).catch((error) => say(String(error.message ?? error), "bad"));
  sidebar.open(query.get("tab") ?? "");
  const sel = query.get("sel");
  if (sel) session.selectId(sel);
  let address = "";
  let addressAt = 0;
  const writeAddress = (now: number) => {
    if (clock.playing || now - addressAt < 300) return;
    const next = new URLSearchParams({ ep: manifest.name, t: (clock.t / 1e9).toFixed(6) });
    if (session.selection) next.set("sel", session.selection.id);
    if (layers.active !== layers.own) next.set("layer", layers.active);
    if (query.has("user")) next.set("user", api.user);
    const text = `?${next}`;
    if (text === address) return;
    address = text;
    addressAt = now;
    history.replaceState(null, "", text);
  };

  listen(session, timeline, actions);
  let drawn = 0;
  const frame = (now: number) => {
    clock.tick(now);
    if (sound.waveform) timeline.waveform = sound.waveform;
    // Without a GPU, points take longer to draw than pictures to decode: pictures come first.
    const later = scene.software && !cameras.settled() && now - drawn < SCENE_WAITS_MS;
    if (!later) drawn = now;
    for (const panel of panels) if (panel !== scene || !later) panel.update();
    bar.update();
    writeAddress(now);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  document.title = `${manifest.episode_id} · mmdata view`;

  // For tests and for `mmdata`'s own reports: the same objects the panels use.
  const settled = () => panels.every((p) => p.settled?.() ?? true);
  (window as any).mmdata = {
    session,
    cameras,
    scene,
    sound,
    timeline,
    worklist,
    panels,
    settled,
    seek: async (at: number) => {
      clock.seek(at);
      for (const panel of panels) panel.update();
      while (!settled()) {
        await new Promise((resolve) => setTimeout(resolve, 2));
        for (const panel of panels) panel.update();
      }
    },
  };
}

function say(message: string, kind: "info" | "bad" = "info"): void {
  let area = document.querySelector(".toasts");
  if (!area) document.body.append((area = h("div", { class: "toasts", role: "status", "aria-live": "polite" })));
  const toast = h("div", { class: `toast ${kind}` }, message);
  area.append(toast);
  while (area.children.length > MOST_TOASTS) area.firstElementChild!.remove();
  setTimeout(() => toast.remove(), kind === "bad" ? 8000 : 3500);
}

// What nobody waited for: told, not swallowed.
window.addEventListener("unhandledrejection", ({ reason }) => say(String(reason?.message ?? reason), "bad"));
boot().catch((error) => showError("The viewer cannot start", error, false));
