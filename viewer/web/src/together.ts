// Several people on one server: what others do arrives here, and what collides is shown.

import { decide } from "./dialogs";
import { h } from "./dom";
import type { Conflict } from "./layers";
import type { Session } from "./session";
import type { TimelinePanel } from "./timeline";

export async function showConflict(session: Session, conflict: Conflict): Promise<void> {
  const mine = conflict.mine[0];
  const theirs = conflict.theirs.find((t) => t.id === mine.id)?.theirs;
  const pretty = (value: unknown) => (value ? JSON.stringify(value, null, 1) : "removed");
  const text = h(
    "div",
    { class: "conflict" },
    h("p", {}, `${conflict.message}. Nothing was overwritten.`),
    h("div", { class: "two" }, h("section", {}, h("h3", {}, "yours"), h("pre", {}, pretty(mine.after))), h("section", {}, h("h3", {}, conflict.user), h("pre", {}, pretty(theirs)))),
  );
  const answer = await decide("Conflict", text, [`Keep ${conflict.user}'s`, "Use mine"]);
  if (answer !== "Use mine") return;
  if (session.layers.active !== conflict.layer) await session.layers.activate(conflict.layer);
  await session.layers.edit(conflict.mine.filter((c) => c.after || session.layers.get(conflict.layer, c.collection, c.id)));
}

async function take(session: Session, timeline: TimelinePanel, message: any): Promise<void> {
  const { layers } = session;
  if (message.type === "operation") {
    await layers.receive(message.layer, message.operation);
    if (message.operation.items.some((i: any) => i.collection === "layer" && i.id === "review")) {
      await layers.refreshRows();
      session.onReview();
    }
  }
  if (message.type === "assignment") {
    await layers.reassigned();
    session.onReview();
  }
  if (message.type === "presence") {
    // Where a hidden layer is worked on would tell what is in it.
    const blind = new Set(layers.rows.filter((row) => row.hidden).map((row) => row.name));
    timeline.people = message.people.filter((p: any) => p.user !== session.api.api.user && typeof p.t === "number" && !blind.has(p.layer));
  }
}

export function connect(session: Session, timeline: TimelinePanel): void {
  const { api } = session.api;
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/${session.api.manifest.key}?user=${encodeURIComponent(api.user)}`;
  const socket = new WebSocket(url);
  let told = "";
  let known = false;
  const timer = setInterval(() => {
    const message = JSON.stringify({ t: session.clock.t, selection: session.selection?.id ?? null, layer: session.layers.active });
    if (socket.readyState === WebSocket.OPEN && message !== told) socket.send((told = message));
  }, 500);
  socket.onopen = async () => {
    if (known) return;
    known = true;
    session.layers.connected = true;
    // What happened while away.
    await session.layers.reassigned().catch(() => {});
    for (const name of session.layers.docs.keys()) await session.layers.fetch(name).catch(() => {});
    session.touch();
  };
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    void take(session, timeline, message).catch((error) => session.say(String(error.message ?? error), "bad"));
  };
  socket.onclose = () => {
    clearInterval(timer);
    session.layers.connected = false;
    session.layers.changed();
    setTimeout(() => connect(session, timeline), 1500);
  };
}
