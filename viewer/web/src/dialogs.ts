// Modal dialogs: choosing a label, typing a text, showing a conflict, the shortcut sheet.

import { h } from "./dom";

function open(title: string, content: HTMLElement[], done: () => void): HTMLDialogElement {
  const dialog = h("dialog", { "aria-label": title }, h("h2", {}, title), ...content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    done();
  });
  // Keys belong to the dialog while it is open.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

interface Choosing {
  hints?: Record<string, string>; // what an option means
  closed?: boolean; // whether only the options may be chosen, not what is typed
}

export function choose(title: string, options: string[], { hints = {}, closed = false }: Choosing = {}): Promise<string | null> {
  return new Promise((resolve) => {
    let answer: string | null = null;
    let at = 0;
    const input = h("input", { type: "text", placeholder: "type to filter; Enter takes", "aria-label": title });
    const list = h("div", { class: "choices", role: "listbox" });
    const matching = () => {
      const typed = input.value.trim();
      const found = options.filter((o) => o.toLowerCase().includes(typed.toLowerCase()));
      return closed || !typed || options.includes(typed) ? found : [...found, typed];
    };
    const hint = (option: string) => (options.includes(option) ? hints[option] : "new: not in the list");
    const take = (option: string) => {
      // At once, so that the next key meets the change (the close event comes later).
      resolve((answer = option));
      dialog.close();
    };
    const show = () => {
      const found = matching();
      at = Math.min(at, Math.max(0, found.length - 1));
      list.replaceChildren(
        ...found.map((option, i) =>
          h(
            "button",
            { type: "button", class: i === at ? "choice on" : "choice", role: "option", "aria-selected": String(i === at), onclick: () => take(option) },
            h("b", {}, option),
            hint(option) ? h("small", {}, hint(option)) : null,
          ),
        ),
      );
      if (!found.length) list.append(h("p", { class: "empty" }, "nothing matches"));
      list.children[at]?.scrollIntoView({ block: "nearest" });
    };
    input.addEventListener("input", () => {
      at = 0;
      show();
    });
    input.addEventListener("keydown", (event) => {
      const found = matching();
      if (event.key === "ArrowDown") at = Math.min(at + 1, found.length - 1);
      else if (event.key === "ArrowUp") at = Math.max(at - 1, 0);
      else if (event.key === "Enter") {
        if (found.length) take(found[at]);
        event.preventDefault();
        return;
      } else return;
      event.preventDefault();
      show();
    });
    const dialog = open(title, [input, list], () => resolve(answer));
    show();
    input.focus();
  });
}

export function ask(title: string, initial = "", long = false): Promise<string | null> {
  return new Promise((resolve) => {
    let answer: string | null = null;
    const input = long ? h("textarea", { rows: 4, "aria-label": title }) : h("input", { type: "text", "aria-label": title });
    input.value = initial;
    const accept = () => {
      resolve((answer = input.value.trim()));
      dialog.close();
    };
    input.addEventListener("keydown", (event) => {
      const key = event as KeyboardEvent;
      if (key.key === "Enter" && (!long || key.ctrlKey)) {
        key.preventDefault();
        accept();
      }
    });
    const buttons = h(
      "div",
      { class: "buttons" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { type: "button", class: "primary", onclick: accept }, long ? "Save (Ctrl+Enter)" : "OK"),
    );
    const dialog = open(title, [input, buttons], () => resolve(answer));
    input.focus();
  });
}

export function decide(title: string, text: HTMLElement, answers: string[]): Promise<string | null> {
  return new Promise((resolve) => {
    let answer: string | null = null;
    const buttons = h(
      "div",
      { class: "buttons" },
      ...answers.map((name, i) =>
        h(
          "button",
          {
            type: "button",
            class: i === 0 ? "primary" : "",
            onclick: () => {
              answer = name;
              dialog.close();
            },
          },
          name,
        ),
      ),
    );
    const dialog = open(title, [text, buttons], () => resolve(answer));
    (buttons.firstElementChild as HTMLElement | null)?.focus();
  });
}

export function sheet(groups: { title: string; rows: [string, string][] }[]): void {
  const columns = groups.map((group) =>
    h(
      "section",
      {},
      h("h3", {}, group.title),
      h(
        "dl",
        {},
        ...group.rows.flatMap(([keys, what]) => [
          h("dt", {}, ...keys.split(" / ").map((k) => h("kbd", {}, k))),
          h("dd", {}, what),
        ]),
      ),
    ),
  );
  const dialog = open(
    "Keys",
    [
      h("div", { class: "sheet" }, ...columns),
      h("div", { class: "buttons below" }, h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close")),
    ],
    () => {},
  );
}
